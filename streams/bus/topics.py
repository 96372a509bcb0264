"""Which topics mailtide keeps on a broker, how they are made, and whether those that are there will do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from pipeline.config.bus_settings import BusSettings
from pipeline.errors import BusError
from pipeline.events import Topic
from streams.bus.connection import client_options, ended, started

COMPACTED = frozenset({"mail.progress.v1", "registry.adapter.promoted.v1"})
"""Topics of which only the newest record per key matters: how far each feed is, which adapter each mailbox serves."""
DEAD_LETTERS = ".dlq"
TOPIC_EXISTS = 36
SETTLE_SECONDS = 10.0
"""How long brokers may take to tell each other what the controller has accepted."""
DEFAULT_BYTES = 1_048_588
"""Kafka's own limit for a batch of records."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it should be. ``cleanup`` is ``delete`` (after ``retention_ms``) or ``compact`` (never, but repeats)."""

    name: str
    partitions: int
    replication: int
    cleanup: str
    retention_ms: int
    message_bytes: int

    @property
    def configuration(self) -> dict[str, str]:
        found = {"cleanup.policy": self.cleanup, "max.message.bytes": str(self.message_bytes)}
        if self.cleanup == "delete":
            found["retention.ms"] = str(self.retention_ms)
        return found


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as it is: ``partitions`` is 0 where there is none, and ``problem`` is empty where it will do."""

    spec: TopicSpec
    partitions: int
    cleanup: str
    problem: str

    @property
    def short(self) -> bool:
        """It is there with fewer partitions than it should have, which making topics does not change."""
        return 0 < self.partitions < self.spec.partitions


def topic_name(settings: BusSettings, topic: Topic) -> str:
    """What a topic is called on the broker."""
    return settings.prefix + topic.value


def dead_letter_name(settings: BusSettings, topic: Topic) -> str:
    """What the topic for the dead letters of a topic is called on the broker."""
    return topic_name(settings, topic) + DEAD_LETTERS


def message_bytes(settings: BusSettings) -> int:
    """The largest record that topics take: a mail just under the claim check still fits, in base64 and with what is
    said about it."""
    return max(DEFAULT_BYTES, 2 * settings.claim_check + 65_536)


def topic_specs(settings: BusSettings) -> list[TopicSpec]:
    """Every topic, each followed by that of its dead letters."""
    specs = []
    for topic in Topic:
        for name in (topic_name(settings, topic), dead_letter_name(settings, topic)):
            compacted = topic.value in COMPACTED and not name.endswith(DEAD_LETTERS)
            specs.append(
                TopicSpec(
                    name=name,
                    partitions=settings.partitions,
                    replication=settings.replication,
                    cleanup="compact" if compacted else "delete",
                    retention_ms=int(settings.retention_days * 86_400_000),
                    message_bytes=message_bytes(settings),
                )
            )
    return specs


async def create_topics(settings: BusSettings) -> list[str]:
    """Makes the topics that are missing, gives all of them the settings' retention and clean-up; the names of those made.

    May be repeated. Raises ``BusError`` when the broker refuses, and for a topic with too few partitions: more of them
    would send mailboxes elsewhere, so that is left to a person.
    """
    from aiokafka.admin import NewTopic
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
    from aiokafka.errors import for_code

    specs = topic_specs(settings)
    async with _admin(settings) as admin:
        answer = await admin.create_topics(
            [NewTopic(spec.name, spec.partitions, spec.replication, topic_configs=spec.configuration) for spec in specs]
        )
        made = []
        for name, code, message in answer.topic_errors:
            if code == 0:
                made.append(name)
            elif code != TOPIC_EXISTS:
                raise BusError(f"the broker does not make the topic {name}: {message or for_code(code).__name__}")
        kept = [spec for spec in specs if spec.name not in made]
        answers = (
            await admin.alter_configs(
                [ConfigResource(ConfigResourceType.TOPIC, spec.name, spec.configuration) for spec in kept]
            )
            if kept
            else []
        )
        for code, message, _, name in (each for answer in answers for each in answer.resources):
            if code != 0:
                raise BusError(f"the broker does not configure the topic {name}: {message or for_code(code).__name__}")
    with suppress(TimeoutError):
        async with asyncio.timeout(SETTLE_SECONDS):
            while any(state.problem and not state.short for state in await topic_states(settings)):
                await asyncio.sleep(0.1)
    await check_topics(settings)
    return made


async def check_topics(settings: BusSettings) -> None:
    """Raises ``BusError`` with what is wrong with the topics, all of it, unless nothing is."""
    states = [state for state in await topic_states(settings) if state.problem]
    if states:
        raise BusError("; ".join(state.problem for state in states), hint=next_step(states))


async def topic_states(settings: BusSettings) -> list[TopicState]:
    """Every topic as it is on the broker, beside what it should be."""
    async with _admin(settings) as admin:
        partitions = {each["topic"]: len(each["partitions"]) for each in await admin.describe_topics()}
        specs = topic_specs(settings)
        policies = await _cleanup_policies(admin, [spec.name for spec in specs if spec.name in partitions])
    states = []
    for spec in specs:
        there, cleanup = partitions.get(spec.name, 0), policies.get(spec.name, "")
        states.append(TopicState(spec, there, cleanup, _problem(spec, there, cleanup)))
    return states


def next_step(states: Sequence[TopicState]) -> str:
    """What to do about topics that will not do."""
    few = [state.partitions for state in states if state.short]
    if few:
        # More partitions would send mailboxes to others, away from their owner and out of order.
        return f"set bus.partitions: {min(few)}, or make topics of your own under another bus.prefix"
    return "run `mailtide topics create`"


def _problem(spec: TopicSpec, partitions: int, cleanup: str) -> str:
    if not partitions:
        return f"there is no topic {spec.name}"
    if partitions < spec.partitions:
        return f"topic {spec.name} has {partitions} partitions instead of {spec.partitions}"
    if cleanup != spec.cleanup:
        return f"topic {spec.name} has the cleanup.policy {cleanup} instead of {spec.cleanup}"
    return ""


async def _cleanup_policies(admin: Any, names: list[str]) -> dict[str, str]:
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

    if not names:
        return {}
    wanted = [ConfigResource(ConfigResourceType.TOPIC, name, {"cleanup.policy": ""}) for name in names]
    return {
        name: next((value for key, value, *_ in entries if key == "cleanup.policy"), "")
        for answer in await admin.describe_configs(wanted)
        for _, _, _, name, entries in answer.resources
    }


@asynccontextmanager
async def _admin(settings: BusSettings) -> AsyncIterator[Any]:
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.errors import KafkaError

    admin = await started(AIOKafkaAdminClient(**client_options(settings)), settings)
    try:
        yield admin
    except KafkaError as error:
        raise BusError(f"the broker at {settings.brokers} refuses: {error}", hint="check what its user may do") from error
    finally:
        await ended(admin)
