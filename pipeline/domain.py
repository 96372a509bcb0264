"""The values that everything else passes around. All are frozen: a change is a new value (``dataclasses.replace``).

Times are naive ``datetime`` in UTC throughout, as the store keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal


class Split(StrEnum):
    """Where a thread's mail may be used; stored when first assigned and never changed."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"
    QUARANTINE = "quarantine"


class Bucket(StrEnum):
    """Length class of a chunk, in tokens of the store's ruler: below 512, below 1024, below 2048, the rest."""

    SHORT = "short"
    MEDIUM = "medium"
    LONG = "long"
    VERYLONG = "verylong"


class Tier(StrEnum):
    """Quality class of a chunk: written by people, sent to many, sent by a program, without own words, or no mail at all
    (:mod:`pipeline.privacy.canaries`)."""

    PERSON = "person"
    BULK = "bulk"
    AUTO = "auto"
    QUOTED = "quoted"
    CANARY = "canary"


TierName = Literal["dialogue", "person", "material", "mixed", "repetitive", "quoted", "bulk", "auto"]
"""Quality tiers (:mod:`pipeline.chunking.quality`) that people may name: all but planted canaries, which are no mail."""


class Clock(StrEnum):
    """What a mailbox's windows are timed by: the wall clock at arrival, or the Date headers of an archive."""

    ARRIVAL = "arrival"
    HEADER = "header"


class Role(StrEnum):
    """Why a chunk is in a run's manifest."""

    NEW = "new"
    REHEARSAL = "rehearsal"


@dataclass(frozen=True, slots=True)
class Address:
    """A mail address, lower-cased, and the display name that stood beside it (possibly empty)."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """An attachment: decoded file name (possibly empty), media type, and size in bytes after transfer decoding."""

    name: str
    content_type: str
    size: int


@dataclass(frozen=True, slots=True)
class ParsedMail:
    """What the bytes of one mail say. Ids are without angle brackets; texts hold no surrogates and use ``\\n``."""

    message_id: str | None
    sender: Address | None
    to: tuple[Address, ...]
    cc: tuple[Address, ...]
    subject: str
    subject_norm: str
    reply_shaped: bool
    date: datetime | None
    references: tuple[str, ...]
    in_reply_to: tuple[str, ...]
    list_id: str | None
    bulk: bool
    auto: bool
    text: str
    own_text: str
    attachments: tuple[Attachment, ...]
    defects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A raw mail as a feed hands it on. ``number`` is the feed's own, contiguous from 1; ``cursor`` finds it again."""

    mailbox: str
    feed: str
    number: int
    cursor: str
    received_at: datetime
    digest: str
    raw: bytes


class TickKind(StrEnum):
    """Marks that may close a window: a feed has caught up, time has passed, or someone asked."""

    CAUGHT_UP = "caught_up"
    AGE = "age"
    CRON = "cron"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class Tick:
    """A numbered mark in a feed's order; ``at`` is when it was noted."""

    mailbox: str
    feed: str
    number: int
    kind: TickKind
    at: datetime


@dataclass(frozen=True, slots=True)
class Parsed:
    """A parser's answer to an ``Arrival``: the mail, with what travels with it, without the raw bytes."""

    mailbox: str
    feed: str
    number: int
    cursor: str
    received_at: datetime
    mail: ParsedMail


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A parser's answer to an ``Arrival`` that it could not handle; ``raw`` is kept so that it can be replayed."""

    mailbox: str
    feed: str
    number: int
    cursor: str
    received_at: datetime
    stage: str
    reason: str
    attempts: int
    raw: bytes


Item = Parsed | Tick | DeadLetter
"""What the owner takes, in order of ``number`` within a feed."""


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message as the store holds it, joined with its texts; what chunks and retrieval are built from."""

    mailbox: str
    message_key: str
    thread_id: str
    split: Split
    window_idx: int
    arrival_ordinal: int
    received_at: datetime
    date: datetime | None
    sender_key: str
    sender_name: str
    sender_address: str
    subject: str
    parent_key: str | None
    bulk: bool
    auto: bool
    text: str
    own_text: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """One training example: a contiguous slice of one thread, belonging to one window.

    ``text`` begins with the subject line; then messages, each led by a line with author and date. ``new_from`` is the
    character offset in ``text`` at which the new text begins; what stands before is context, read but not trained.
    ``message_keys``, ``starts``, ``ordinals`` and ``parents`` run in parallel over the messages in the chunk:
    key, character offset of the message's lead line, arrival ordinal, and key of the message it answers (or None).
    The first ``n_context`` of them are context. ``n_messages`` counts the new ones. ``n_tokens`` is by the store's ruler.
    ``authors`` and ``tiers`` run beside them: who wrote each message (keyed, "" where nobody is named) and its quality
    class; empty where that was not recorded.
    """

    mailbox: str
    chunk_id: str
    thread_id: str
    window_idx: int
    split: Split
    sender: str
    message_keys: tuple[str, ...]
    starts: tuple[int, ...]
    ordinals: tuple[int, ...]
    parents: tuple[str | None, ...]
    n_context: int
    n_messages: int
    n_tokens: int
    bucket: Bucket
    tier: Tier
    new_from: int
    sha256: str
    text: str
    authors: tuple[str, ...] = ()
    tiers: tuple[Tier, ...] = ()
