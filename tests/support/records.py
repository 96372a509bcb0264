"""Records put on a topic as any program could."""

from __future__ import annotations

import asyncio

from pipeline.config.bus_settings import BusSettings
from streams.bus.connection import client_options, ended, started
from streams.bus.envelope import Record


def publish(settings: BusSettings, topic: str, *records: Record) -> None:
    """Puts records on a topic, in order."""
    from aiokafka import AIOKafkaProducer

    async def send() -> None:
        producer = await started(AIOKafkaProducer(**client_options(settings)), settings)
        try:
            for each in records:
                await producer.send_and_wait(topic, each.value, key=each.key, headers=list(each.headers))
        finally:
            await ended(producer)

    asyncio.run(send())
