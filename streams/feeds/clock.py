"""The owner's own feed: the marks that close windows without mail (age, cron, by hand), numbered so that they replay."""

from __future__ import annotations

from datetime import datetime

from pipeline.domain import Tick, TickKind
from pipeline.home import Home
from streams.feeds.numbering import Note, Noted, Numbering


class ClockFeed:
    """Ticks of one mailbox. The journal is open only while a method runs."""

    kind = "clock"

    def __init__(self, home: Home, mailbox: str) -> None:
        self.name = f"{mailbox}.clock"
        self._home = home
        self._mailbox = mailbox

    def note(self, kind: TickKind, at: datetime, *, floor: int = 0) -> Tick:
        """A new tick, durable on return; ``at`` is naive UTC, ``floor`` the last number that the owner took."""
        with Numbering(self._home, self.name) as numbering:
            (noted,) = numbering.note([Note(kind.value, "", "", at)], floor=floor)
        return self._tick(noted)

    def pending(self, after: int) -> list[Tick]:
        """The ticks numbered above ``after``, the last one that the owner took."""
        with Numbering(self._home, self.name) as numbering:
            return [self._tick(noted) for noted in numbering.after(after)]

    def _tick(self, noted: Noted) -> Tick:
        return Tick(self._mailbox, self.name, noted.number, TickKind(noted.note.kind), noted.note.at)
