"""When a training window opens and closes: a state machine over mails and ticks, without clock or store.

Arrival decides which window a mail is in: each mail goes into the window that is open when it is taken, so an index never
falls and a closed window never gains a mail. Window 0 is the bootstrap and knows no count, tokens, age or cron.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache

from pydantic import TypeAdapter

from pipeline.arrival.cron import next_moment
from pipeline.config.settings import WindowSettings
from pipeline.domain import Clock, Tick, TickKind

JUMP = timedelta(days=30)
"""A step of the header clock that a single wrong Date could make, so a second mail must confirm it."""


@dataclass(frozen=True, slots=True)
class OpenWindow:
    """The open window of a mailbox. ``opened_at`` is None until its first mail. ``caught_up`` lists feeds that have read
    to their end while window 0 is open. Under the header clock ``clock_at`` is the time that the Date headers have
    reached and ``held_at`` a jump of 30 days or more that waits for the next mail to confirm it."""

    idx: int = 0
    opened_at: datetime | None = None
    n_messages: int = 0
    n_tokens: int = 0
    caught_up: tuple[str, ...] = ()
    clock_at: datetime | None = None
    held_at: datetime | None = None

    def to_json(self) -> str:
        """The window as the store keeps it."""
        return _as_json().dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str) -> OpenWindow:
        """Reads :meth:`to_json` back; raises ``pydantic.ValidationError`` for anything else."""
        return _as_json().validate_json(text)


@cache
def _as_json() -> TypeAdapter[OpenWindow]:
    return TypeAdapter(OpenWindow)


@dataclass(frozen=True, slots=True)
class Closing:
    """A window that closed, timed by the mailbox's clock. ``reason`` is bootstrap, count, tokens, age, cron or manual."""

    idx: int
    opened_at: datetime
    closed_at: datetime
    reason: str
    n_messages: int
    n_tokens: int


@dataclass(frozen=True, slots=True)
class Transition:
    """What a mail or a tick did: the window that closed before it, the one it is in, the one that closed after it, and
    the state from then on. A tick is in no window: ``window_idx`` is then that of the open one, and what it closes is
    ``closed_before``."""

    closed_before: Closing | None
    window_idx: int
    closed_after: Closing | None
    window: OpenWindow


def on_mail(
    window: OpenWindow, policy: WindowSettings, clock: Clock, *, at: datetime, date: datetime | None, n_tokens: int
) -> Transition:
    """Takes a mail, which must not be a duplicate.

    ``at`` is when the owner takes it; under the header clock it is the file's own time for the mail, which the clock never
    passes. ``date`` is the Date header.
    """
    closed_before = None
    if clock is Clock.HEADER:
        window = _follow(window, date, at)
        at = window.clock_at or at
        kind = _overdue(window, policy, at)
        if kind is not None:
            closed_before, window = _close(window, at, kind.value)
    window = _add(window, at, n_tokens)
    idx, closed_after = window.idx, None
    reason = _filled(window, policy, clock)
    if reason is not None:
        closed_after, window = _close(window, at, reason)
    return Transition(closed_before, idx, closed_after, window)


def on_tick(window: OpenWindow, policy: WindowSettings, clock: Clock, tick: Tick, feeds: frozenset[str]) -> Transition:
    """Takes a tick; one that finds nothing to close is legal, as mails may have closed the window that it was noted for.

    ``feeds`` are all feeds of the mailbox. Under the header clock only a manual tick can close.
    """
    reason: str | None = None
    if tick.kind is TickKind.MANUAL:
        reason = tick.kind.value if window.n_messages else None
    elif clock is Clock.ARRIVAL and window.idx == 0:
        if tick.kind is TickKind.CAUGHT_UP:
            window = replace(window, caught_up=tuple(sorted({*window.caught_up, tick.feed})))
        if window.n_messages >= policy.bootstrap and feeds <= set(window.caught_up):
            reason = "bootstrap"
    elif clock is Clock.ARRIVAL and tick.kind is _overdue(window, policy, tick.at):
        reason = tick.kind.value
    if reason is None:
        return Transition(None, window.idx, None, window)
    at = tick.at if clock is Clock.ARRIVAL else window.clock_at or tick.at
    closed, window = _close(window, at, reason)
    return Transition(closed, window.idx, None, window)


def due(window: OpenWindow, policy: WindowSettings, clock: Clock, now: datetime) -> TickKind | None:
    """The tick that the owner's clock feed should note now: age or cron, whichever was reached first, or none."""
    return _overdue(window, policy, now) if clock is Clock.ARRIVAL else None


def _overdue(window: OpenWindow, policy: WindowSettings, now: datetime) -> TickKind | None:
    if window.idx == 0 or window.opened_at is None:
        return None
    reached = []
    if policy.age is not None:
        reached.append((timedelta(days=policy.age), TickKind.AGE))
    if policy.cron is not None:
        reached.append((next_moment(policy.cron, window.opened_at) - window.opened_at, TickKind.CRON))
    wait, kind = min(reached, default=(timedelta.max, TickKind.AGE))
    return kind if wait <= now - window.opened_at else None


def _filled(window: OpenWindow, policy: WindowSettings, clock: Clock) -> str | None:
    """What the mail just added has reached. Window 0 of an arrival mailbox waits for a tick, however full it is."""
    if window.idx == 0:
        return "bootstrap" if clock is Clock.HEADER and window.n_messages >= policy.bootstrap else None
    if policy.count is not None and window.n_messages >= policy.count:
        return "count"
    if policy.tokens is not None and window.n_tokens >= policy.tokens:
        return "tokens"
    return None


def _add(window: OpenWindow, at: datetime, n_tokens: int) -> OpenWindow:
    return replace(
        window,
        opened_at=window.opened_at or at,
        n_messages=window.n_messages + 1,
        n_tokens=window.n_tokens + n_tokens,
    )


def _close(window: OpenWindow, at: datetime, reason: str) -> tuple[Closing, OpenWindow]:
    """Closes a window that holds mail; a clock that was set back cannot make it end before it began."""
    opened_at = window.opened_at or at
    closing = Closing(window.idx, opened_at, max(at, opened_at), reason, window.n_messages, window.n_tokens)
    return closing, OpenWindow(idx=window.idx + 1, clock_at=window.clock_at, held_at=window.held_at)


def _follow(window: OpenWindow, date: datetime | None, at: datetime) -> OpenWindow:
    """Moves the header clock by one mail: never back, never past ``at``, and far ahead only when two mails in a row say so.

    A mail without a date says nothing. When two jump, the lesser date is taken; if the second stands a jump beyond even
    that, it is held in its turn.
    """
    if date is None:
        return window
    date = min(date, at)
    now = window.clock_at
    if now is None:
        # Mails before the first date were timed by their file, which may be years later than they are.
        return replace(window, clock_at=date, opened_at=date if window.n_messages else None)
    if date - now < JUMP:
        return replace(window, clock_at=max(now, date), held_at=None)
    if window.held_at is None:
        return replace(window, held_at=date)
    taken = min(window.held_at, date)
    return replace(window, clock_at=taken, held_at=date if date - taken >= JUMP else None)
