"""What a bus promises. A bus in one process and a broker keep the same promises, so handlers never know which it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pipeline.events import Event, Topic

Handler = Callable[[Event], None]
"""Acts on an event, and raises to refuse it. It may see an event more than once: it must not matter."""


class Interrupted(Exception):
    """Raised by a handler that was told to stop before its end: no refusal, and the event comes again after a restart."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """A consumer's interest in a topic. ``consumer`` is the name that its progress is kept under, across restarts; an
    event that the handler refuses ``max_attempts`` times is set aside."""

    consumer: str
    topic: Topic
    handler: Handler
    max_attempts: int = 5


@dataclass(frozen=True, slots=True)
class Dead:
    """An event that a consumer refused for good: after how many attempts, with what last error, and when (naive UTC)."""

    event: Event
    consumer: str
    attempts: int
    error: str
    at: datetime


class Bus(Protocol):
    """Carries events from those who publish to those who subscribe, at least once.

    Per subscription, events of one key are handed over in the order of publication, and a later one waits until the
    earlier is done or set aside; events of other keys do not wait. A consumer that is new gets everything published so
    far, as far as a broker's topic still keeps it. A process that dies inside a handler costs no attempt: only the
    handler's own refusals count.
    """

    def subscribe(self, subscription: Subscription) -> None:
        """Adds a subscription; raises ``ValueError`` when the consumer has one for that topic."""

    def publish(self, events: Sequence[Event]) -> None:
        """Durable on return. An event whose id was published before is the same event: nobody is handed it again. A broker
        keeps it twice all the same, and each consumer knows it by the last 10,000 records of the partition."""

    def deliver(self, limit: int | None = None) -> int:
        """Hands over what is pending, at most ``limit`` times, until nothing is, also what handlers publish meanwhile;
        refused events are tried again after those that were refused less often. Returns how often it handed over."""

    def dead(self) -> list[Dead]:
        """Events set aside and not replayed since, in the order of their publication."""

    def replay(self, event_id: str, consumer: str) -> None:
        """Makes an event that was set aside pending again; raises ``UsageError`` when it is none."""

    def stop(self) -> None:
        """Ends deliveries for good, from any thread or signal handler; a handler that runs is let finish, and counted."""
