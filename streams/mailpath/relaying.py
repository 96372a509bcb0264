"""The role ``relay``: publishes what the store's outbox holds on the bus, in order, after it was committed there.

What is noted as relayed was published. A crash in between publishes the same event again, under the same id.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from pipeline.errors import BusError, StoreHeldError
from pipeline.events import Event, Topic
from pipeline.store import Store
from pipeline.store.rows import DeliveryRow, OutboxRow
from pipeline.times import utc_now
from streams.bus.contract import Bus
from streams.feeds.backoff import delays

log = logging.getLogger(__name__)

CONSUMER = "relay"
AT_ONCE = 500
LOOK_SECONDS = 1.0
NOT_RELAYED = f"""ordinal > (
    SELECT coalesce(max(o.ordinal), 0) FROM outbox o JOIN deliveries d USING (event_id) WHERE d.consumer = '{CONSUMER}'
)"""
"""Events are relayed in order, so that those behind the last one relayed are all that are left."""

OpenStore = Callable[[], AbstractContextManager[Store]]


def run(open_store: OpenStore, bus: Bus, stop: threading.Event, *, wait: Callable[[float], object] | None = None) -> None:
    """Relays until ``stop`` is set. ``wait`` returns when the store may have changed, at the latest after the seconds
    given; without it the store is looked at every second.

    A broker that does not answer is told of once and asked again later, up to five minutes apart.
    """
    waits = delays()
    trouble = ""
    while not stop.is_set():
        try:
            relayed = relay(open_store, bus)
        except (BusError, StoreHeldError) as error:
            if str(error) != trouble:
                log.warning("events wait in the outbox: %s", error)
            trouble = str(error)
            stop.wait(next(waits))
            continue
        if trouble:
            log.info("events are relayed again")
        waits, trouble = delays(), ""
        if not relayed:
            (wait or stop.wait)(LOOK_SECONDS)


def relay(open_store: OpenStore, bus: Bus) -> int:
    """Publishes the next events, at most 500, and notes it; returns how many. Raises as ``Bus.publish`` does."""
    with open_store() as store:
        rows = store.fetch(OutboxRow, NOT_RELAYED, order=f"ordinal LIMIT {AT_ONCE}")
    if not rows:
        return 0
    bus.publish([Event(id=row.event_id, type=Topic(row.topic), time=row.at, key=row.key, data=row.data) for row in rows])
    with open_store() as store:
        now = utc_now()
        store.append([DeliveryRow(row.event_id, CONSUMER, 1, "done", "", now) for row in rows])
    return len(rows)
