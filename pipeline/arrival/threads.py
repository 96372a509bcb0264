"""Which thread a message belongs to, and what that costs: links, bridges, quarantine and exclusions.

A thread carries one frozen split, so threads are never merged. A message that refers to threads of different splits is
quarantined, and so is what builds on it: then no message of one split ever refers to a message of another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pipeline.domain import ParsedMail, Split

SUBJECT_USES = 50
"""The newest uses of a subject that the fallback looks at; the store's lookup must give at least these."""
SUBJECT_REACH = timedelta(days=30)
VERSION_DIGITS = 16
"""Hex digits after ``#`` in the key of a later version of a Message-ID."""


@dataclass(frozen=True, slots=True)
class Version:
    """A stored message under a base key: the same Message-ID may name several."""

    message_key: str
    date: datetime | None
    content_sha: str
    thread_id: str


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

    ``versions`` holds the stored messages of a base key in order of arrival. ``links`` and ``quarantined`` map ids to
    thread ids, and ``threads`` holds every thread that any of these or ``subjects`` name. ``people`` holds the keyed
    hashes of known correspondents' addresses.
    """

    versions: dict[str, tuple[Version, ...]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    quarantined: dict[str, str] = field(default_factory=dict)
    threads: dict[str, KnownThread] = field(default_factory=dict)
    subjects: dict[str, tuple[SubjectUse, ...]] = field(default_factory=dict)
    people: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Incoming:
    """A parsed mail with its ids as keys and its people as keyed hashes.

    ``references`` (oldest first) and ``in_reply_to`` hold ids as :func:`pipeline.arrival.identity.id_key` writes them,
    without repeats and without the mail's own. ``participants`` are all of From, To and Cc, ``strangers`` the same without
    the owner's and lists' addresses; ``token_people`` maps each In-Reply-To id that looks like an address to the keyed hash
    of that address.
    """

    mail: ParsedMail
    base_key: str
    content_sha: str
    references: tuple[str, ...]
    in_reply_to: tuple[str, ...]
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


def short(key: str) -> str:
    """First 16 hex digits of sha256: the form of a thread's id."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def place(incoming: Incoming, known: Known, *, split_of: Callable[[str], Split]) -> Placement:
    """Decides where a mail goes, from what is known before it; ``split_of`` gives a new thread its split.

    Pure: :func:`absorb` adds the decision to ``known`` for the mails after it.
    """
    versions = known.versions.get(incoming.base_key, ())
    repeated = next((version for version in versions if _repeats(incoming, version)), None)
    if repeated is not None:
        return _duplicate(repeated, known)
    answered = tuple(id_ for id_ in incoming.in_reply_to if not _is_person(id_, incoming, known))
    ids = tuple(dict.fromkeys((incoming.base_key, *incoming.references, *answered)))
    message_key = f"{incoming.base_key}#{incoming.content_sha[:VERSION_DIGITS]}" if versions else incoming.base_key

    suspects = _threads((known.quarantined[id_] for id_ in ids if id_ in known.quarantined), known)
    linked = _threads((known.links[id_] for id_ in ids if id_ in known.links), known)
    if len(ids) == 1 and not suspects and not linked:
        found = _by_subject(incoming, known)
        suspects = [thread for thread in found if thread.split is Split.QUARANTINE]
        linked = [thread for thread in found if thread.split is not Split.QUARANTINE]

    if suspects:
        thread_id, split = suspects[0].thread_id, Split.QUARANTINE
    elif len({thread.split for thread in linked}) > 1:
        thread_id, split = f"q{short(message_key)}", Split.QUARANTINE
    elif linked:
        earliest = min(linked, key=lambda thread: thread.first_ordinal)
        thread_id, split = earliest.thread_id, earliest.split
    else:
        thread_id = short((*incoming.references, *answered, incoming.base_key)[0])
        split = split_of(thread_id)

    aside = split is Split.QUARANTINE
    return Placement(
        message_key=message_key,
        duplicate_of=None,
        thread_id=thread_id,
        split=split,
        is_new_thread=thread_id not in known.threads,
        parent_key=_parent(thread_id, (*answered, *reversed(incoming.references)), known),
        new_links=() if aside else tuple(id_ for id_ in ids if id_ not in known.links),
        bridges=tuple(
            Bridge(thread.thread_id, thread.split is split)
            for thread in (*suspects, *linked)
            if thread.thread_id != thread_id
        ),
        quarantined_ids=(incoming.base_key,) if aside and incoming.base_key not in known.quarantined else (),
        excluded_threads=tuple(thread.thread_id for thread in linked if aside and thread.split in (Split.VAL, Split.TEST)),
    )


def absorb(known: Known, incoming: Incoming, placement: Placement, ordinal: int) -> None:
    """Adds to ``known`` what the store will know once the message is appended at ``ordinal``; a duplicate adds nothing."""
    if placement.duplicate_of is not None:
        return
    mail, thread_id = incoming.mail, placement.thread_id
    version = Version(placement.message_key, mail.date, incoming.content_sha, thread_id)
    known.versions[incoming.base_key] = (*known.versions.get(incoming.base_key, ()), version)
    if placement.is_new_thread:
        known.threads[thread_id] = KnownThread(thread_id, placement.split, ordinal)
    known.links.update(dict.fromkeys(placement.new_links, thread_id))
    known.quarantined.update(dict.fromkeys(placement.quarantined_ids, thread_id))
    known.people |= incoming.participants
    if incoming.subject_norm_key is not None:
        use = SubjectUse(thread_id, mail.date, ordinal, incoming.participants)
        known.subjects[incoming.subject_norm_key] = (*known.subjects.get(incoming.subject_norm_key, ()), use)


def _repeats(incoming: Incoming, version: Version) -> bool:
    """Whether a mail is a stored version of its id again. Two mails without a date have not "the same Date"."""
    same_date = version.date is not None and version.date == incoming.mail.date
    return same_date or version.content_sha == incoming.content_sha


def _duplicate(version: Version, known: Known) -> Placement:
    return Placement(
        message_key=version.message_key,
        duplicate_of=version.message_key,
        thread_id=version.thread_id,
        split=known.threads[version.thread_id].split,
        is_new_thread=False,
        parent_key=None,
        new_links=(),
        bridges=(),
        quarantined_ids=(),
        excluded_threads=(),
    )


def _is_person(id_: str, incoming: Incoming, known: Known) -> bool:
    """Whether an In-Reply-To id is the address of someone known, or of someone on this very mail."""
    person = incoming.token_people.get(id_)
    return person is not None and (person in known.people or person in incoming.participants)


def _threads(thread_ids: Iterable[str], known: Known) -> list[KnownThread]:
    return [known.threads[thread_id] for thread_id in dict.fromkeys(thread_ids)]


def may_follow_subject(incoming: Incoming) -> bool:
    """Whether placing a mail may ask for earlier uses of its subject: it answers something and refers to nothing, unless
    to what may turn out to be a person."""
    mail = incoming.mail
    refers = bool(incoming.references) or len(incoming.token_people) < len(incoming.in_reply_to)
    return mail.reply_shaped and mail.date is not None and not refers


def _by_subject(incoming: Incoming, known: Known) -> list[KnownThread]:
    """The newest thread that a reply without any ids may answer, as a list of one or none."""
    date = incoming.mail.date
    if date is None or incoming.subject_norm_key is None or not may_follow_subject(incoming):
        return []
    uses = sorted(known.subjects.get(incoming.subject_norm_key, ()), key=lambda use: use.ordinal)[-SUBJECT_USES:]
    near = [
        (use.date, use.ordinal, use.thread_id)
        for use in uses
        if use.date is not None and abs(date - use.date) <= SUBJECT_REACH and use.participants & incoming.strangers
    ]
    return [known.threads[max(near)[2]]] if near else []


def _parent(thread_id: str, nearest_first: Iterable[str], known: Known) -> str | None:
    """The newest version of the first id that is stored in the thread."""
    for id_ in nearest_first:
        for version in reversed(known.versions.get(id_, ())):
            if version.thread_id == thread_id:
                return version.message_key
    return None
