"""The bus of a single process. The queue is the outbox in the store; deliveries are rows beside it.

The store is opened for moments only, to note what became of one event and to find the next: a handler may train for
hours, and nobody else could use the store meanwhile. A crash inside a handler leaves no row, so the event comes again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime

from pipeline.errors import MailtideError, UsageError
from pipeline.events import Event, Topic
from pipeline.store import Store
from pipeline.store.rows import DeadLetterRow, DeliveryRow, OutboxRow, Row
from pipeline.times import utc_now
from streams.bus.contract import Dead, Interrupted, Subscription

log = logging.getLogger(__name__)

NEXT_PER_KEY = """
    SELECT o.event_id, o.topic, o.key, o.data, o."at", o.ordinal, coalesce(d.last, 0), coalesce(d.last - d.replayed, 0)
    FROM outbox o LEFT JOIN (
        SELECT event_id, max(attempt) AS last, arg_max(outcome, attempt) AS outcome,
               coalesce(max(attempt) FILTER (outcome = 'replayed'), 0) AS replayed
        FROM deliveries WHERE consumer = ? GROUP BY event_id
    ) d USING (event_id)
    WHERE o.topic = ? AND coalesce(d.outcome, 'new') NOT IN ('done', 'dead')
    QUALIFY row_number() OVER (PARTITION BY o.key ORDER BY o.ordinal) = 1
"""
SET_ASIDE = """
    SELECT o.event_id, o.topic, o.key, o.data, o."at", d.consumer, d.last, d.last - d.replayed, d.error, d.since
    FROM outbox o JOIN (
        SELECT event_id, consumer, max(attempt) AS last, arg_max(outcome, attempt) AS outcome,
               coalesce(max(attempt) FILTER (outcome = 'replayed'), 0) AS replayed,
               arg_max(error, attempt) AS error, arg_max("at", attempt) AS since
        FROM deliveries GROUP BY event_id, consumer
    ) d USING (event_id)
    WHERE d.outcome = 'dead' ORDER BY o.ordinal, d.consumer
"""


@dataclass(frozen=True, slots=True)
class _Job:
    """An event that is due to a subscription: ``rows`` tell of it already, ``refusals`` of these since it last began."""

    subscription: Subscription
    event: Event
    ordinal: int
    rows: int
    refusals: int


class EmbeddedBus:
    """Keeps the contract of :class:`streams.bus.contract.Bus` in a store. ``open_store`` is entered for moments, and never
    while a handler runs."""

    def __init__(
        self, open_store: Callable[[], AbstractContextManager[Store]], now: Callable[[], datetime] = utc_now
    ) -> None:
        self._open_store = open_store
        self._now = now
        self._subscriptions: list[Subscription] = []
        self._delivering = threading.Lock()
        self._stopped = threading.Event()

    def subscribe(self, subscription: Subscription) -> None:
        name = (subscription.consumer, subscription.topic)
        if name in [(each.consumer, each.topic) for each in self._subscriptions]:
            raise ValueError(f"{subscription.consumer} has subscribed to {subscription.topic} already")
        self._subscriptions.append(subscription)

    def publish(self, events: Sequence[Event]) -> None:
        by_id: dict[str, Event] = {}
        for event in events:
            by_id.setdefault(event.id, event)
        with self._open_store() as store:
            marks = ", ".join("?" * len(by_id))
            known = store.fetch(OutboxRow, f"event_id IN ({marks})", list(by_id)) if by_id else []
            for row in known:
                del by_id[row.event_id]
            store.append(store.outbox_rows(by_id.values()))

    def deliver(self, limit: int | None = None) -> int:
        """As the contract says. Called while a delivery is under way, from a handler or another thread, it does nothing."""
        if not self._delivering.acquire(blocking=False):
            return 0
        try:
            return self._deliver(limit)
        finally:
            self._delivering.release()

    def dead(self) -> list[Dead]:
        with self._open_store() as store:
            return [
                Dead(_event(*row[:5]), consumer, refusals, error, since)
                for *row, consumer, _, refusals, error, since in store.query(SET_ASIDE)
            ]

    def replay(self, event_id: str, consumer: str) -> None:
        with self._open_store() as store:
            rows = [last for id_, *_, name, last, _, _, _ in store.query(SET_ASIDE) if (id_, name) == (event_id, consumer)]
            if not rows:
                raise UsageError(
                    f"{consumer} has set aside no event {event_id}",
                    hint="`mailtide deadletters list` shows what was set aside",
                )
            store.append([DeliveryRow(event_id, consumer, rows[0] + 1, "replayed", "", self._now())])

    def stop(self) -> None:
        self._stopped.set()

    def _deliver(self, limit: int | None) -> int:
        handed = 0
        outcome: list[Row] = []
        while True:
            # One opening both notes what became of the last event and finds the next.
            with self._open_store() as store:
                store.append(outcome)
                finished = self._stopped.is_set() or handed == limit
                job = None if finished else self._next(store)
            if job is None:
                return handed
            outcome = self._hand_over(job)
            handed += 1

    def _next(self, store: Store) -> _Job | None:
        """The event refused least often, of these the oldest, so that none keeps those of other keys waiting."""
        due = [
            _Job(subscription, _event(*row[:5]), ordinal, rows, refusals)
            for subscription in self._subscriptions
            for *row, ordinal, rows, refusals in store.query(
                NEXT_PER_KEY, [subscription.consumer, subscription.topic.value]
            )
        ]
        return min(due, key=lambda job: (job.refusals, job.ordinal), default=None)

    def _hand_over(self, job: _Job) -> list[Row]:
        """Runs the handler; the rows to append tell what came of it."""
        event, consumer, attempt = job.event, job.subscription.consumer, job.rows + 1
        try:
            job.subscription.handler(event)
        except Interrupted:
            self._stopped.set()
            return []
        except Exception as error:
            if not isinstance(error, MailtideError):
                log.warning("%s failed on %s", consumer, event.id, exc_info=error)
            reason = f"{type(error).__name__}: {error}"
        else:
            return [DeliveryRow(event.id, consumer, attempt, "done", "", self._now())]
        now = self._now()
        if job.refusals + 1 < job.subscription.max_attempts:
            return [DeliveryRow(event.id, consumer, attempt, "failed", reason, now)]
        return [
            DeliveryRow(event.id, consumer, attempt, "dead", reason, now),
            DeadLetterRow(
                id=f"{event.id}@{consumer}#{attempt}",
                mailbox=event.key,
                feed=event.type.value,
                cursor=event.id,
                received_at=event.time,
                stage=consumer,
                reason=reason,
                attempts=job.refusals + 1,
                raw_sha=None,
                at=now,
            ),
        ]


def _event(event_id: str, topic: str, key: str, data: str, at: datetime) -> Event:
    return Event(id=event_id, type=Topic(topic), time=at, key=key, data=data)
