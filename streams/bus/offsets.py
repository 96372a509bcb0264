"""Where topics begin and end, and how far groups are. Asked over connections of its own: on one that a consumer fetches
over, a question waits until the fetch is answered, which takes half a second where nothing is new.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any

from pipeline.config.bus_settings import BusSettings
from streams.bus.connection import REQUEST_SECONDS, client_options, ended, started

if TYPE_CHECKING:
    from aiokafka import TopicPartition

AGAIN_SECONDS = 0.2


class Offsets:
    """Errors are the library's own: whoever asks says what they mean."""

    def __init__(self, consumer: Any, admin: Any) -> None:
        self._consumer = consumer
        self._admin = admin

    @classmethod
    async def opened(cls, settings: BusSettings) -> Offsets:
        """Raises ``BusError``."""
        from aiokafka import AIOKafkaConsumer
        from aiokafka.admin import AIOKafkaAdminClient

        options = client_options(settings)
        consumer = await started(AIOKafkaConsumer(**options), settings)
        try:
            return cls(consumer, await started(AIOKafkaAdminClient(**options), settings))
        except BaseException:
            await ended(consumer)
            raise

    async def close(self) -> None:
        await asyncio.gather(ended(self._consumer), ended(self._admin))

    async def beginnings(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset of the oldest record that a partition keeps."""
        return dict(await self._consumer.beginning_offsets(list(partitions)))

    async def ends(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset that the next record of a partition gets."""
        return dict(await self._consumer.end_offsets(list(partitions))) if partitions else {}

    async def members(self, group: str) -> int:
        """How many processes are in a group now; 0 where there is no such group."""
        from aiokafka.errors import for_code

        async def described() -> int:
            answers = await self._admin.describe_consumer_groups([group])
            count = 0
            for code, _, _, _, _, members, *_ in (each for answer in answers for each in answer.groups):
                if code:
                    raise for_code(code)
                count += len(members)
            return count

        return int(await self._coordinated(described))

    async def committed(self, group: str, partitions: Collection[TopicPartition]) -> dict[TopicPartition, tuple[int, str]]:
        """What a group has committed, with what it wrote beside it; -1 where it has not."""
        found = await self._coordinated(lambda: self._admin.list_consumer_group_offsets(group, partitions=list(partitions)))
        return {partition: (at.offset, at.metadata or "") for partition, at in found.items()}

    async def _coordinated(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """The answer of a group's coordinator."""
        from aiokafka.errors import KafkaError

        async with asyncio.timeout(REQUEST_SECONDS):
            while True:
                try:
                    return await ask()
                except KafkaError as error:
                    # A coordinator that has just moved or begun is worth another question, and the library asks only once.
                    if not error.retriable:
                        raise
                    await asyncio.sleep(AGAIN_SECONDS)
