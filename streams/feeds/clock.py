"""The owner's own feed: the marks that close windows without mail (age, cron, by hand), numbered so that they replay."""

from __future__ import annotations

from datetime import datetime

from pipeline.domain import Tick, TickKind
from pipeline.home import Home
from streams.feeds.handing import Origin
from streams.feeds.numbering import Note, Numbering


class ClockFeed:
    """Ticks of one mailbox. The journal is open only while a method runs."""

    kind = "clock"

    def __init__(self, home: Home, mailbox: str) -> None:
        self.name = f"{mailbox}.clock"
        self._home = home
        self._origin = Origin(mailbox, self.name)

    def note(self, kind: TickKind, at: datetime, *, floor: int = 0) -> Tick:
        """A new tick, durable on return; ``at`` is naive UTC, ``floor`` the last number that the owner took."""
        with Numbering(self._home, self.name) as numbering:
            (noted,) = numbering.note([Note(kind.value, "", "", at)], floor=floor)
        return self._origin.tick(noted)

    def pending(self, after: int) -> list[Tick]:
        """The ticks numbered above ``after``, the last one that the owner took."""
        with Numbering(self._home, self.name) as numbering:
            return [self._origin.tick(noted) for noted in numbering.after(after)]
