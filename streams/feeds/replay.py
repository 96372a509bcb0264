"""Dead letters that arrive once more: the feed ``replay`` of a mailbox, whose source is the store's own dead letters.

A replay is a new arrival, with the time of the first: numbered, parsed and taken like any mail, so that a crash anywhere
leaves it to be taken once. Its cursor names the dead letter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from pipeline.domain import Arrival, DeadLetter
from pipeline.home import Home
from pipeline.store import Store
from pipeline.store.rows import DeadLetterRow, RawRow
from streams.feeds.handing import Origin
from streams.feeds.numbering import MAIL, Note, Numbering

EMPTY = hashlib.sha256(b"").hexdigest()


def feed_of(mailbox: str) -> str:
    """The name of a mailbox's replay feed."""
    return f"{mailbox}.replay"


def noted(home: Home, mailbox: str) -> dict[str, int]:
    """The dead letters of a mailbox that were ever numbered to arrive once more: id to number."""
    if not (home.feeds / f"{feed_of(mailbox)}.sqlite").exists():
        return {}
    with Numbering(home, feed_of(mailbox)) as numbering:
        return {each.note.cursor: each.number for each in numbering.after(0)}


class ReplayFeed:
    """The dead letters of one mailbox that somebody asked for. It is no feed that window 0 waits for, and has no ticks."""

    kind = "replay"

    def __init__(self, store: Store, home: Home, mailbox: str) -> None:
        self.name = feed_of(mailbox)
        self._store = store
        self._home = home
        self._mailbox = mailbox

    @property
    def source(self) -> str:
        return f"dead letters of {self._mailbox}"

    def note(self, letters: Sequence[DeadLetterRow], *, floor: int) -> None:
        """Numbers the letters that have no number yet, durably; ``floor`` is the last number that the owner took."""
        with Numbering(self._home, self.name) as numbering:
            numbering.index_cursors()
            known = numbering.known([letter.id for letter in letters])
            numbering.note(
                [
                    Note(MAIL, letter.id, letter.raw_sha or EMPTY, letter.received_at)
                    for letter in letters
                    if letter.id not in known
                ],
                floor=floor,
            )

    def items(self, after: int) -> Iterator[Arrival | DeadLetter]:
        """What is numbered above ``after``; bytes that were erased since make a dead letter of their own."""
        origin = Origin(self._mailbox, self.name)
        with Numbering(self._home, self.name) as numbering:
            for each in numbering.after(after):
                raw = raw_of(self._store, each.note.digest)
                if raw is None:
                    yield replace(origin.dead(each, "its bytes were erased before it was taken", b""), stage=self.kind)
                else:
                    yield origin.mail(each, raw)


def raw_of(store: Store, sha256: str) -> bytes | None:
    """The bytes of a dead letter; None when they are not kept any more."""
    rows = store.fetch(RawRow, "sha256 = ?", [sha256])
    return rows[0].body if rows else None
