"""What feeds do alike, whatever they read: batches to note in one transaction, and noted mails as the items handed on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from pipeline.domain import Arrival, DeadLetter, Tick, TickKind
from pipeline.errors import FeedError
from streams.feeds.numbering import MAIL, Note, Noted

T = TypeVar("T")

BATCH_MAILS = 256
BATCH_BYTES = 8 << 20
MAX_MAIL = 256 << 20
KEPT_OF_LONGER = 1 << 20
OVERSIZE = "oversize"
"""The kind of a note of a mail above the limit."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where items come from: what a note becomes as an item of this mailbox and feed."""

    mailbox: str
    feed: str

    def mail(self, noted: Noted, raw: bytes) -> Arrival:
        note = noted.note
        return Arrival(self.mailbox, self.feed, noted.number, note.cursor, note.at, note.digest, raw)

    def dead(self, noted: Noted, reason: str, raw: bytes) -> DeadLetter:
        """A mail that cannot be handed on, under its number; ``raw`` is what is kept of it."""
        note = noted.note
        return DeadLetter(self.mailbox, self.feed, noted.number, note.cursor, note.at, "feed", reason, 1, raw)

    def tick(self, noted: Noted) -> Tick:
        return Tick(self.mailbox, self.feed, noted.number, TickKind(noted.note.kind), noted.note.at)

    def mail_or_beginning(self, noted: Noted, raw: bytes, length: int, limit: int) -> Arrival | DeadLetter:
        """A mail of ``length`` bytes; of one noted as above ``limit`` its beginning ``raw``, in a dead letter."""
        return self.mail(noted, raw) if noted.note.kind == MAIL else self.dead(noted, too_long(length, limit), raw)


def note_of(cursor: str, raw: bytes, at: datetime, *, length: int, limit: int) -> Note:
    """The note of a mail of ``length`` bytes, of which ``raw`` is handed on."""
    return Note(MAIL if length <= limit else OVERSIZE, cursor, sha256(raw), at)


def too_long(length: int, limit: int) -> str:
    """Why a mail is only a dead letter."""
    return f"a mail of {length} bytes is above the limit of {limit}; only its beginning is kept"


def in_batches(items: Iterable[T], size_of: Callable[[T], int], *, most: int, most_bytes: int) -> Iterator[list[T]]:
    """Groups items until there are ``most``, or they hold ``most_bytes``.

    When the source fails, what it gave before is handed on first: damage at the end of an archive costs no mail.
    """
    batch: list[T] = []
    size = 0
    try:
        for item in items:
            batch.append(item)
            size += size_of(item)
            if len(batch) >= most or size >= most_bytes:
                yield batch
                batch, size = [], 0
    except FeedError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def newest_received(raw: bytes) -> datetime | None:
    """When the last server took a mail, by its own ``Received`` fields."""
    from pipeline.parsing.headers import newest_received  # the parser, which most passes can do without

    return newest_received(raw)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
