"""Which thread a message belongs to, and what that costs: links, bridges, quarantine and exclusions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from pipeline.domain import ParsedMail, Split


@dataclass(frozen=True, slots=True)
class Version:
    """A stored message under a base key: the same Message-ID may name several."""

    message_key: str
    date: datetime | None
    content_sha: str


@dataclass(frozen=True, slots=True)
class KnownThread:
    thread_id: str
    split: Split
    first_ordinal: int


@dataclass(frozen=True, slots=True)
class SubjectUse:
    """An earlier message with a normalised subject, for the subject fallback."""

    thread_id: str
    date: datetime | None
    ordinal: int
    participants: frozenset[str]


@dataclass(slots=True)
class Needs:
    """What must be looked up in the store before a batch can be placed."""

    base_keys: set[str] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)
    subject_keys: set[str] = field(default_factory=set)
    person_keys: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Known:
    """What the store knows about a batch's needs, and what the batch itself has added so far.

    ``links`` and ``quarantined`` map ids to thread ids; ``messages`` maps a message key or base key that is stored to
    its thread id; ``people`` holds the keyed hashes of known correspondents' addresses.
    """

    versions: dict[str, tuple[Version, ...]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    quarantined: dict[str, str] = field(default_factory=dict)
    threads: dict[str, KnownThread] = field(default_factory=dict)
    subjects: dict[str, tuple[SubjectUse, ...]] = field(default_factory=dict)
    people: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Incoming:
    """A parsed mail with its keyed hashes. ``participants`` are all of From, To and Cc, ``strangers`` the same without
    the owner's and lists' addresses; ``token_people`` maps each In-Reply-To token that looks like an address to the
    keyed hash of that address."""

    mail: ParsedMail
    base_key: str
    content_sha: str
    subject_norm_key: str | None
    participants: frozenset[str]
    strangers: frozenset[str]
    token_people: dict[str, str]


@dataclass(frozen=True, slots=True)
class Bridge:
    other_thread_id: str
    same_split: bool


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a message goes. ``new_links`` are ids to link to ``thread_id``; ``quarantined_ids`` are to be listed;
    ``excluded_threads`` are val and test threads that leave evaluation; ``parent_key`` is the nearest stored message that
    it answers. A duplicate (``duplicate_of`` set) is no message and adds no row but its record."""

    message_key: str
    duplicate_of: str | None
    thread_id: str
    split: Split
    is_new_thread: bool
    parent_key: str | None
    new_links: tuple[str, ...]
    bridges: tuple[Bridge, ...]
    quarantined_ids: tuple[str, ...]
    excluded_threads: tuple[str, ...]


PersonKey = Callable[[str], str]
