"""Reads a topic as a whole, from its beginning and then on, without a group: every reader sees every record."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pipeline.config.bus_settings import BusSettings
from streams.bus.connection import client_options, ended, started
from streams.bus.envelope import Record, headers_of

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer

POLL_MS = 500


class Follower:
    """Some partitions of one topic. Use ``rest`` first, then ``more`` again and again."""

    def __init__(self, consumer: AIOKafkaConsumer, ends: dict[Any, int]) -> None:
        self._consumer = consumer
        self._ends = ends

    @classmethod
    async def opened(cls, settings: BusSettings, topic: str, partitions: Iterable[int]) -> Follower:
        """Raises ``BusError`` when the broker is not there."""
        from aiokafka import AIOKafkaConsumer, TopicPartition

        consumer = AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False, auto_offset_reset="earliest")
        await started(consumer, settings)
        mine = [TopicPartition(topic, number) for number in partitions]
        consumer.assign(mine)
        await consumer.seek_to_beginning(*mine)
        return cls(consumer, dict(await consumer.end_offsets(mine)))

    async def rest(self) -> list[Record]:
        """Everything up to what was the end when this was opened."""
        found: list[Record] = []
        while await self._behind():
            found += await self.more()
        return found

    async def more(self) -> list[Record]:
        """What came since; waits half a second for it. Offsets are those of one partition each."""
        batches = await self._consumer.getmany(timeout_ms=POLL_MS)
        return [
            Record(each.key or b"", each.value or b"", headers_of(each.headers))
            for batch in batches.values()
            for each in batch
        ]

    async def close(self) -> None:
        await ended(self._consumer)

    async def _behind(self) -> bool:
        return any([await self._consumer.position(part) < end for part, end in self._ends.items()])
