"""What only a broker can do to a bus: foreign records, rebalances, restarts, silence, and jobs longer than its patience."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from pipeline.config.bus_settings import BusSettings
from pipeline.errors import BusError
from pipeline.events import Event, Topic
from streams.bus.connection import client_options
from streams.bus.contract import Interrupted, Subscription
from streams.bus.deadletters import Origin, dead_record
from streams.bus.envelope import Record, headers_of, record_of
from streams.bus.intake import READ_AHEAD, Membership
from streams.bus.kafka import KafkaBus
from streams.bus.loop_thread import LoopThread
from tests.support.kafka import Broker, running
from tests.test_bus_contract import Consumer, closed, kafka_settings, topics_on

LONG = 60.0


@pytest.fixture
def settings(broker: Broker) -> BusSettings:
    return kafka_settings(topics_on(broker))


def send(settings: BusSettings, records: Sequence[Record], topic: str = Topic.WINDOW_CLOSED) -> None:
    """Records as any program may write them to a topic."""
    from aiokafka import AIOKafkaProducer

    async def work() -> None:
        async with AIOKafkaProducer(**client_options(settings)) as producer:
            for record in records:
                await producer.send_and_wait(
                    settings.prefix + topic, record.value, key=record.key, headers=list(record.headers)
                )

    asyncio.run(work())


def test_a_foreign_record_is_set_aside_at_once_and_blocks_nobody(
    settings: BusSettings, caplog: pytest.LogCaptureFixture
) -> None:
    newer = record_of(closed(1, "a"))
    headers = tuple((name, b"mail.window.closed.v2" if name == "ce_type" else value) for name, value in newer.headers)
    send(
        settings,
        [Record(b"a", b"hello", ()), Record(newer.key, newer.value, headers), record_of(closed(2, "a"))],
    )
    with KafkaBus(settings) as bus:
        consumer = Consumer(bus, max_attempts=3)
        assert bus.deliver() == 1
        assert consumer.seen == [closed(2, "a").id]
        foreign, of_newer = bus.dead()
    assert (foreign.event.data, foreign.event.key, foreign.attempts, foreign.consumer) == ("hello", "a", 1, "c")
    assert foreign.error == "RecordRefused: it is no event of mailtide: it has no CloudEvents headers"
    assert of_newer.event.id == closed(1, "a").id
    assert "newer version, mail.window.closed.v2" in of_newer.error and "update mailtide" in of_newer.error
    assert foreign.event.id in caplog.text


def test_a_foreign_record_that_is_replayed_is_set_aside_again(settings: BusSettings) -> None:
    send(settings, [Record(b"a", b"hello", ())])
    with KafkaBus(settings) as bus:
        Consumer(bus)
        bus.deliver()
        (dead,) = bus.dead()
        bus.replay(dead.event.id, "c")
        assert bus.dead() == []
        assert bus.deliver() == 0
        assert [(again.event.id, again.error) for again in bus.dead()] == [(dead.event.id, dead.error)]


def test_mail_that_is_replayed_goes_back_to_its_topic(settings: BusSettings) -> None:
    record = Record(b"digest", b"Subject: x\n\n\xff", (("ce_id", b"message.received/inbox/1"), ("ce_type", b"mail.v9")))
    origin = Origin(1_700_000_000_000, settings.prefix + Topic.MESSAGE_RECEIVED, 1, 42)
    dead = dead_record(record, "parse", 1, "it is of a newer version", origin)
    send(settings, [dead, dead], f"{Topic.MESSAGE_RECEIVED}.dlq")
    with KafkaBus(settings) as bus:
        (letter,) = bus.dead()
        assert (letter.consumer, letter.error, letter.event.data) == (
            "parse",
            "it is of a newer version",
            "Subject: x\n\n\ufffd",
        )
        bus.replay(letter.event.id, "parse")
        assert bus.dead() == []
    assert asyncio.run(records_of(settings, Topic.MESSAGE_RECEIVED)) == [(1, record)]


def test_more_than_is_read_ahead(settings: BusSettings) -> None:
    many = [closed(window, mailbox) for window in range(READ_AHEAD) for mailbox in ("a", "b", "c", "d")]
    with KafkaBus(settings) as bus:
        consumer = Consumer(bus)
        consumer.refuses = {closed(0, "a").id: 2, closed(7, "c").id: 1}
        bus.publish(many)
        assert bus.deliver() == len(many) + 3
    for mailbox in ("a", "b", "c", "d"):
        order = [id_ for id_ in dict.fromkeys(consumer.seen) if f"/{mailbox}/" in id_]
        assert order == [closed(window, mailbox).id for window in range(READ_AHEAD)]


def test_a_job_longer_than_the_brokers_patience_runs_once_and_keeps_its_place(
    settings: BusSettings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "streams.bus")
    membership = Membership(session_seconds=2.0, max_poll_seconds=2.0)
    long_enough = threading.Event()
    members: list[set[str]] = []

    def work(event: Event) -> None:
        members.append(asyncio.run(member_ids(settings)))
        # The job is what takes time here: nothing else tells that the broker's patience is over, three times.
        assert not long_enough.wait(3 * membership.max_poll_seconds)
        members.append(asyncio.run(member_ids(settings)))
        started.append(event.id)

    started: list[str] = []
    with KafkaBus(settings, membership) as bus:
        bus.subscribe(Subscription("c", Topic.WINDOW_CLOSED, work))
        bus.publish([closed(0)])
        assert bus.deliver() == 1
        assert bus.deliver() == 0
    assert started == [closed(0).id]
    before, after = members
    assert len(before) == 1 and before == after
    with KafkaBus(settings) as again:
        consumer = Consumer(again)
        again.deliver()
    assert consumer.seen == []


def test_two_members_share_the_partitions_and_one_takes_over(settings: BusSettings) -> None:
    many = [closed(window, mailbox) for window in range(3) for mailbox in "abcdefgh"]
    with KafkaBus(settings) as one:
        first = Consumer(one)
        one.publish(many)
        assert one.deliver(limit=4) == 4
        with KafkaBus(settings) as two:
            second = Consumer(two)
            two.deliver()
        one.deliver()
    assert sorted(first.seen + second.seen) == sorted(event.id for event in many)
    assert second.seen


def test_an_event_finished_while_another_has_its_partition_is_not_handled_again(settings: BusSettings) -> None:
    elsewhere = LoopThread("another member")
    other: Any = None
    seen: list[str] = []

    async def join() -> Any:
        from aiokafka import AIOKafkaConsumer
        from aiokafka.coordinator.assignors.range import RangePartitionAssignor

        name = f"{settings.prefix}{Topic.WINDOW_CLOSED}"
        group = f"{settings.prefix}c.{Topic.WINDOW_CLOSED}"
        options = {**client_options(settings), "partition_assignment_strategy": (RangePartitionAssignor,)}
        member = AIOKafkaConsumer(name, f"{name}.dlq", group_id=group, enable_auto_commit=False, **options)
        await member.start()
        return member

    def work(event: Event) -> None:
        nonlocal other
        seen.append(event.id)
        if other is None:
            other = elsewhere.run(join())

    with KafkaBus(settings) as bus:
        bus.subscribe(Subscription("c", Topic.WINDOW_CLOSED, work))
        first = [closed(0, mailbox) for mailbox in "abcdefgh"]
        bus.publish(first)
        bus.deliver()
        elsewhere.run(other.stop())
        second = [closed(1, mailbox) for mailbox in "abcdefgh"]
        bus.publish(second)
        while len(set(seen)) < len(first) + len(second):
            bus.deliver()
    elsewhere.end()
    assert sorted(seen) == sorted(event.id for event in first + second)


def test_two_processes_of_one_name_are_told(settings: BusSettings) -> None:
    membership = Membership(instance="twin", session_seconds=2.0)
    with KafkaBus(settings, membership) as one, KafkaBus(settings, membership) as two:
        for bus in (one, two):
            Consumer(bus)

        def until_told() -> None:
            while True:
                one.deliver()
                two.deliver()

        with pytest.raises(BusError, match=r"another process takes its turn as twin in the group .*; end one of the two"):
            until_told()


def test_an_interrupted_handler_ends_the_bus_and_costs_nothing(settings: BusSettings) -> None:
    def interrupted(event: Event) -> None:
        raise Interrupted

    with KafkaBus(settings) as bus:
        bus.subscribe(Subscription("c", Topic.WINDOW_CLOSED, interrupted, max_attempts=1))
        bus.publish([closed(0), closed(1)])
        assert bus.deliver() == 1
        assert (bus.deliver(), bus.dead()) == (0, [])
    with KafkaBus(settings) as again:
        consumer = Consumer(again)
        again.deliver()
    assert consumer.seen == [closed(0).id, closed(1).id]


def test_topics_that_are_missing_are_told_at_first_use(broker: Broker) -> None:
    with KafkaBus(kafka_settings(f"{broker.address}/nothing-here.")) as bus:
        Consumer(bus)
        attempts: list[Callable[[], Any]] = [lambda: bus.publish([closed(0)]), bus.deliver, bus.dead]
        for attempt in attempts:
            with pytest.raises(BusError, match=r"there is no topic nothing-here\..*; run `mailtide topics create`"):
                attempt()


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with running(tmp_path_factory.mktemp("own")) as broker:
        yield broker


def test_a_broker_that_is_killed_loses_nothing_and_is_found_again(
    own_broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    settings = kafka_settings(topics_on(own_broker))
    with KafkaBus(settings) as bus:
        consumer = Consumer(bus)
        bus.publish([closed(0), closed(1), closed(2)])
        assert bus.deliver(limit=1) == 1
        own_broker.kill()
        own_broker.start()
        assert bus.deliver() == 2
        bus.publish([closed(3)])
        assert bus.deliver() == 1
    assert consumer.seen == [closed(window).id for window in range(4)]
    with KafkaBus(settings) as again:
        consumer = Consumer(again)
        assert again.deliver() == 0


def test_a_handler_that_outlives_the_broker_is_not_run_again(own_broker: Broker) -> None:
    settings = kafka_settings(topics_on(own_broker))
    with KafkaBus(settings) as bus:
        seen: list[str] = []

        def work(event: Event) -> None:
            seen.append(event.id)
            own_broker.kill()
            own_broker.start()

        bus.subscribe(Subscription("c", Topic.WINDOW_CLOSED, work))
        bus.publish([closed(0)])
        assert bus.deliver() == 1
        assert bus.deliver() == 0
    with KafkaBus(settings) as again:
        consumer = Consumer(again)
        again.deliver()
    assert (seen, consumer.seen) == ([closed(0).id], [])


def test_without_a_broker_each_call_says_so_and_stop_ends_the_wait(own_broker: Broker) -> None:
    settings = kafka_settings(topics_on(own_broker))
    # Nobody can say goodbye to a broker that is gone: the group misses this member for its session.
    with KafkaBus(settings, Membership(session_seconds=2.0)) as bus:
        Consumer(bus)
        bus.publish([closed(0)])
        bus.deliver()
        own_broker.kill()
        waiting = threading.Thread(target=bus.deliver)
        waiting.start()
        bus.stop()
        waiting.join(LONG)
        assert not waiting.is_alive()
    with KafkaBus(settings) as late:
        Consumer(late)
        attempts: list[Callable[[], Any]] = [lambda: late.publish([closed(0)]), late.deliver, late.dead]
        for attempt in attempts:
            with pytest.raises(BusError, match=f"no broker answers at {own_broker.address}; start it"):
                attempt()
        own_broker.start()
        assert late.deliver() == 0


async def member_ids(settings: BusSettings) -> set[str]:
    """Who is in the group of consumer ``c`` for closed windows."""
    from aiokafka.admin import AIOKafkaAdminClient

    admin = AIOKafkaAdminClient(**client_options(settings))
    await admin.start()
    try:
        (answer,) = await admin.describe_consumer_groups([f"{settings.prefix}c.{Topic.WINDOW_CLOSED}"])
    finally:
        await admin.close()
    ((_, _, state, _, _, members, *_),) = answer.groups
    assert state == "Stable"
    return {member[0] for member in members}


async def records_of(settings: BusSettings, topic: Topic) -> list[tuple[int, Record]]:
    """What a topic holds, each with its partition."""
    from aiokafka import AIOKafkaConsumer

    options = {**client_options(settings), "auto_offset_reset": "earliest"}
    async with AIOKafkaConsumer(settings.prefix + topic, **options) as consumer:
        ends = await consumer.end_offsets(consumer.assignment())
        found: list[tuple[int, Record]] = []
        while len(found) < sum(ends.values()):
            each = await consumer.getone()
            found.append((each.partition, Record(each.key, each.value, headers_of(each.headers))))
    return found
