"""Topics on a real broker: made once, checked, and what is wrong with them said in one sentence."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from pipeline.config.bus_settings import BusSettings
from pipeline.errors import BusError
from pipeline.events import Topic
from streams.bus.connection import client_options
from streams.bus.topics import TopicState, check_topics, create_topics, topic_specs, topic_states
from tests.support.daemons import until
from tests.support.kafka import Broker
from tests.support.program import complaint, run

Answer = TypeVar("Answer")


def settings(broker: Broker, prefix: str, **others: Any) -> BusSettings:
    return BusSettings(brokers=broker.address, prefix=f"{prefix}.", **{"partitions": 2, **others})


def test_every_topic_has_one_for_its_dead_letters() -> None:
    specs = topic_specs(BusSettings(prefix="p.", retention_days=2))
    assert [spec.name for spec in specs] == [name for topic in Topic for name in (f"p.{topic}", f"p.{topic}.dlq")]
    by_name = {spec.name: spec for spec in specs}
    assert by_name["p.mail.window.closed.v1"].configuration["retention.ms"] == str(2 * 86_400_000)
    assert by_name["p.registry.adapter.promoted.v1"].configuration["cleanup.policy"] == "compact"
    assert by_name["p.registry.adapter.promoted.v1.dlq"].configuration["cleanup.policy"] == "delete"


def test_topics_are_made_once_and_then_will_do(broker: Broker) -> None:
    bus = settings(broker, "made")
    with pytest.raises(BusError, match=r"there is no topic made\.mail\.window\.closed\.v1; .*run `mailtide topics create`"):
        asyncio.run(check_topics(bus))
    assert asyncio.run(create_topics(bus)) == [spec.name for spec in topic_specs(bus)]
    assert asyncio.run(create_topics(bus)) == []
    asyncio.run(check_topics(bus))


def test_too_few_partitions_are_told_and_left_to_a_person(broker: Broker) -> None:
    asyncio.run(create_topics(settings(broker, "few")))
    more = settings(broker, "few", partitions=3)
    for attempt in (check_topics, create_topics):
        with pytest.raises(
            BusError, match=r"few\.mail\.window\.closed\.v1 has 2 partitions instead of 3.*bus\.partitions: 2"
        ):
            asyncio.run(_as_any(attempt(more)))
    asyncio.run(check_topics(settings(broker, "few", partitions=1)))


def test_a_wrong_clean_up_is_told_and_put_right(broker: Broker) -> None:
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    bus = settings(broker, "policy")

    async def make_wrong() -> None:
        admin = AIOKafkaAdminClient(**client_options(bus))
        await admin.start()
        await admin.create_topics([NewTopic("policy.registry.adapter.promoted.v1", 2, 1)])
        await admin.close()

    def there() -> list[TopicState]:
        return [state for state in asyncio.run(topic_states(bus)) if state.partitions]

    asyncio.run(make_wrong())
    until(there)  # a broker tells of a topic a moment after it has agreed to make it
    (state,) = there()
    assert state.problem == "topic policy.registry.adapter.promoted.v1 has the cleanup.policy delete instead of compact"
    assert state.spec.name not in asyncio.run(create_topics(bus))
    asyncio.run(check_topics(bus))


def test_the_command_makes_and_checks_topics(broker: Broker, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.yaml").write_text(
        f"bus: {{kind: kafka, brokers: '{broker.address}', prefix: command., partitions: 1}}\n"
    )
    missing = run(home, "topics", "check")
    assert missing.returncode == 1
    count, to_type = len(Topic) * 2, f"mailtide --home {home} topics create"
    assert f"{count} of {count} topics will not do; run `{to_type}`" in complaint(missing)
    made = json.loads(run(home, "topics", "create", "--json").stdout)
    assert (len(made["made"]), made["kept"]) == (2 * len(Topic), [])
    assert "0 topics made" in run(home, "topics", "create").stdout
    checked = run(home, "topics", "check", "--json")
    assert checked.returncode == 0
    assert {row["problem"] for row in json.loads(checked.stdout)} == {""}


async def _as_any(answer: Awaitable[Answer]) -> Answer:
    return await answer
