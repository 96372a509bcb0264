"""The log's windows under a policy. Pure: the state machine of :mod:`pipeline.arrival.windows` over stored mails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pipeline.arrival.windows import Closing, OpenWindow, Transition, due, on_mail, on_tick
from pipeline.config.settings import WindowSettings
from pipeline.domain import Tick
from streams.whatif.log import Closed, Log


@dataclass(frozen=True, slots=True)
class Window:
    """A window that closed: the log's mails from position ``first`` up to, and without, ``end``."""

    closing: Closing
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Replayed:
    """``closed`` in order; the mails from ``open_from`` on are in the window that stays open."""

    closed: tuple[Window, ...]
    open_from: int

    def window_of(self, n_mails: int) -> list[int]:
        """The window of each of the log's mails."""
        found = [window.closing.idx for window in self.closed for _ in range(window.first, window.end)]
        return found + [len(self.closed)] * (n_mails - self.open_from)


def replay(log: Log, policy: WindowSettings) -> Replayed:
    """Takes the log's mails and marks under ``policy``, the owner looking at its clock before each mail and at the end.

    A daemon closes an overdue window a little earlier, while no mail comes: the window holds the same mails.
    """
    closed: list[Window] = []
    window = OpenWindow()
    waiting = list(reversed(log.marks))

    def follow(step: Transition) -> OpenWindow:
        for closing in (step.closed_before, step.closed_after):
            if closing is not None:
                first = closed[-1].end if closed else 0
                closed.append(Window(closing, first, first + closing.n_messages))
        return step.window

    def take_marks(position: int) -> None:
        nonlocal window
        while waiting and waiting[-1].position <= position:
            mark = waiting.pop()
            window = follow(on_tick(window, policy, log.clock, mark.tick, mark.feeds))

    def look(now: datetime) -> None:
        nonlocal window
        kind = due(window, policy, log.clock, now)
        if kind is not None:
            tick = Tick(log.mailbox, f"{log.mailbox}.clock", 0, kind, now)
            window = follow(on_tick(window, policy, log.clock, tick, frozenset()))

    for position, mail in enumerate(log.mails):
        take_marks(position)
        look(mail.at)
        step = on_mail(window, policy, log.clock, at=mail.at, date=mail.date, n_tokens=mail.n_tokens)
        window = follow(step)
    take_marks(len(log.mails))
    if log.ended_at is not None:
        look(log.ended_at)
    return Replayed(tuple(closed), closed[-1].end if closed else 0)


def as_stored(log: Log, replayed: Replayed) -> bool:
    """Whether the replay gives the windows that the store holds: each mail in its own, each closed for the same reason."""
    closings: Sequence[Closed] = [
        Closed(window.closing.idx, window.closing.reason, window.closing.n_messages) for window in replayed.closed
    ]
    return tuple(closings) == log.closed and replayed.window_of(len(log.mails)) == [mail.window_idx for mail in log.mails]
