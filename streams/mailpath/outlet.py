"""Writes many small records to Kafka: gathered in batches per partition, each acknowledged by all replicas.

One ``send`` per record costs 25 microseconds of processor time, most of it for a future that nobody needs; a batch has one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pipeline.config.bus_settings import BusSettings
from pipeline.errors import BusError
from streams.bus.connection import client_options, ended, started
from streams.bus.envelope import Record
from streams.bus.topics import message_bytes

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer

log = logging.getLogger(__name__)

BATCH_BYTES = 262_144
MOST_RECORDS = 4_000
"""Records that are not acknowledged yet; who adds more waits."""
AGAIN_SECONDS = 0.5
"""How long after a failure the same records are tried again; a broker that is started anew needs two seconds."""
CLOSE_SECONDS = 3.0
"""How long the client may take to end; without its broker it would wait for it."""

Partition = tuple[str, int]
Acknowledged = Callable[[], object]


class _Gathered:
    """Records of one partition, not yet sent."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder
        self.records: list[tuple[Record, Acknowledged | None]] = []


class Outlet:
    """Writes until it succeeds: what a broker does not acknowledge is sent again, so a record may be there twice, and
    records of a partition may change places. Used from one event loop."""

    def __init__(self, producer: AIOKafkaProducer, linger: float) -> None:
        self._producer = producer
        self._linger = linger
        self._gathered: dict[Partition, _Gathered] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._unacknowledged = 0
        self._room = asyncio.Condition()
        self._timer: asyncio.TimerHandle | None = None
        self._told = False
        self._failure: BusError | None = None

    @classmethod
    async def opened(cls, settings: BusSettings, *, linger: float) -> Outlet:
        """``linger`` is how many seconds a record may wait for others. Raises ``BusError``."""
        from aiokafka import AIOKafkaProducer

        producer = AIOKafkaProducer(
            **client_options(settings),
            enable_idempotence=True,
            max_batch_size=BATCH_BYTES,
            max_request_size=message_bytes(settings),
        )
        return cls(await started(producer, settings), linger)

    async def partitions(self, topic: str) -> int:
        """How many partitions a topic has."""
        return len(await self._producer.partitions_for(topic))

    async def add(self, topic: str, partition: int, record: Record, acknowledged: Acknowledged | None = None) -> None:
        """Takes a record; ``acknowledged`` is called in the event loop once it is durable. Waits while too many are.

        Raises ``BusError``, here or in ``flush``, when the broker refuses for good.
        """
        if self._failure is not None:
            raise self._failure
        if self._unacknowledged >= MOST_RECORDS:
            self._send_all()
            await self._until(MOST_RECORDS - 1)
        self._unacknowledged += 1
        self._gather((topic, partition), record, acknowledged)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._linger, self._send_all)

    async def flush(self) -> None:
        """Returns when everything taken so far is acknowledged."""
        self._send_all()
        await self._until(0)

    async def _until(self, most: int) -> None:
        async with self._room:
            await self._room.wait_for(lambda: self._unacknowledged <= most or self._failure is not None)
        if self._failure is not None:
            raise self._failure

    async def close(self) -> None:
        """Ends at once; what was not acknowledged may be lost, or there."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await ended(self._producer)

    def _gather(self, where: Partition, record: Record, acknowledged: Acknowledged | None) -> None:
        while True:
            gathered = self._gathered.get(where)
            if gathered is None:
                gathered = self._gathered[where] = _Gathered(self._producer.create_batch())
            # The first record of a batch always finds room.
            added = gathered.builder.append(
                key=record.key, value=record.value, timestamp=None, headers=list(record.headers)
            )
            if added is not None:
                gathered.records.append((record, acknowledged))
                return
            self._send(where)

    def _send_all(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for where in list(self._gathered):
            self._send(where)

    def _send(self, where: Partition) -> None:
        gathered = self._gathered.pop(where)
        task = asyncio.get_running_loop().create_task(self._deliver(where, gathered))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, where: Partition, gathered: _Gathered) -> None:
        from aiokafka.errors import KafkaError, KafkaTimeoutError

        topic, partition = where
        try:
            await (await self._producer.send_batch(gathered.builder, topic, partition=partition))
        except KafkaError as error:
            if not (error.retriable or isinstance(error, KafkaTimeoutError)):
                await self._fail(
                    BusError(f"the broker does not take records of {topic}: {error}", hint="see its log, and try again")
                )
                return
            if not self._told:
                log.warning("the broker did not take %d records, which are sent again: %s", len(gathered.records), error)
                self._told = True
            await asyncio.sleep(AGAIN_SECONDS)
            for record, acknowledged in gathered.records:
                self._gather(where, record, acknowledged)
            if where in self._gathered:
                self._send(where)
            return
        self._told = False
        await self._acknowledge(gathered.records)

    async def _fail(self, failure: BusError) -> None:
        self._failure = failure
        async with self._room:
            self._room.notify_all()

    async def _acknowledge(self, records: Iterable[tuple[Record, Acknowledged | None]]) -> None:
        for _, acknowledged in records:
            self._unacknowledged -= 1
            if acknowledged is not None:
                acknowledged()
        async with self._room:
            self._room.notify_all()


def partition_of(key: str, partitions: int) -> int:
    """Where Kafka's own partitioner puts a key, whichever client writes it."""
    from aiokafka.partitioner import murmur2

    return int((murmur2(key.encode()) & 0x7FFFFFFF) % partitions)
