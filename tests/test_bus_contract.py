"""One contract, every bus: what publishers and handlers may rely on, crashes included."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from datetime import datetime
from pathlib import Path

import pytest

from pipeline.arrival.people import PeopleKey
from pipeline.config.bus_settings import BusSettings
from pipeline.config.settings import Settings
from pipeline.errors import RunError, UsageError
from pipeline.events import Event, RunRequested, Topic, WindowClosed
from pipeline.home import Home
from pipeline.store import Store, Versions
from pipeline.store.rows import DeadLetterRow, OutboxRow
from streams.bus.contract import Bus, Subscription
from streams.bus.embedded import EmbeddedBus
from streams.bus.intake import Membership
from streams.bus.kafka import KafkaBus
from streams.bus.topics import create_topics
from tests.support.kafka import Broker

AT = datetime(2026, 1, 2, 3, 4, 5)
VERSIONS = Versions(parse=1, scrub=1, chunk=1)


def closed(window: int, mailbox: str = "main") -> Event:
    payload = WindowClosed(
        mailbox=mailbox, window_idx=window, reason="count", n_messages=1, n_chunks=1, shard_path="", shard_sha256=""
    )
    return Event.of(payload, at=AT)


def open_store(home: Home) -> Store:
    if home.store.exists():
        return Store.open(home, Settings(), VERSIONS)
    return Store.create(home, Settings(), PeopleKey(bytes(32)), VERSIONS)


@contextmanager
def embedded(where: str) -> Iterator[Callable[[], Bus]]:
    """Buses on one store, which stays open, as in a daemon. ``where`` is its home."""
    with open_store(Home(Path(where))) as store:
        yield lambda: EmbeddedBus(lambda: nullcontext(store))


@contextmanager
def kafka(where: str) -> Iterator[Callable[[], Bus]]:
    """Buses on one broker, each ended before the next begins, as processes one after another. ``where``: ADDRESS/PREFIX."""
    settings = kafka_settings(where)
    with ExitStack() as running:

        def open_bus() -> Bus:
            running.close()
            return running.enter_context(KafkaBus(settings, Membership(instance="test")))

        yield open_bus


def kafka_settings(where: str) -> BusSettings:
    address, _, prefix = where.partition("/")
    return BusSettings(kind="kafka", brokers=address, prefix=prefix, partitions=2)


BUSES: dict[str, Callable[[str], AbstractContextManager[Callable[[], Bus]]]] = {"embedded": embedded, "kafka": kafka}
"""By name: what opens buses that carry on where the last one ended, also the last one of a process that died."""


@pytest.fixture(params=sorted(BUSES))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def where(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place of its own for the buses of a test."""
    if kind == "embedded":
        return str(tmp_path / "home")
    return topics_on(request.getfixturevalue("broker"))


def topics_on(broker: Broker) -> str:
    """New topics on a broker: what ``kafka`` takes."""
    where = f"{broker.address}/{uuid.uuid4().hex[:8]}."
    asyncio.run(create_topics(kafka_settings(where)))
    return where


class Consumer:
    """Notes what it is handed, and refuses the events of ``refuses`` as often as that says."""

    def __init__(self, bus: Bus, topic: Topic = Topic.WINDOW_CLOSED, name: str = "c", max_attempts: int = 5) -> None:
        self.seen: list[str] = []
        self.refuses: dict[str, int] = {}
        self.bus = bus
        bus.subscribe(Subscription(name, topic, self.take, max_attempts))

    def take(self, event: Event) -> None:
        self.seen.append(event.id)
        if self.refuses.get(event.id, 0) > 0:
            self.refuses[event.id] -= 1
            raise RunError(f"cannot take {event.id}")


@pytest.fixture
def open_bus(kind: str, where: str) -> Iterator[Callable[[], Bus]]:
    with BUSES[kind](where) as open_:
        yield open_


def test_what_was_published_comes_once_and_whole(open_bus: Callable[[], Bus]) -> None:
    got: list[Event] = []
    bus = open_bus()
    bus.subscribe(Subscription("c", Topic.WINDOW_CLOSED, got.append))
    bus.publish([closed(0), closed(1)])
    assert bus.deliver() == 2
    assert got == [closed(0), closed(1)]
    assert got[1].payload() == closed(1).payload()
    assert bus.deliver() == 0


def test_publishing_the_same_event_again_changes_nothing(open_bus: Callable[[], Bus]) -> None:
    bus = open_bus()
    consumer = Consumer(bus)
    bus.publish([])
    bus.publish([closed(0), closed(0)])
    bus.publish([closed(0), closed(1)])
    bus.deliver()
    bus.publish([closed(1)])
    bus.deliver()
    assert consumer.seen == [closed(0).id, closed(1).id]
    again = open_bus()
    restarted = Consumer(again)
    again.publish([closed(0), closed(2)])
    again.deliver()
    assert restarted.seen == [closed(2).id]


def test_topics_and_consumers_are_apart(open_bus: Callable[[], Bus]) -> None:
    bus = open_bus()
    one, two = Consumer(bus, name="one"), Consumer(bus, name="two")
    other = Consumer(bus, topic=Topic.RUN_REQUESTED, name="one")
    bus.publish([closed(0)])
    assert bus.deliver() == 2
    assert (one.seen, two.seen, other.seen) == ([closed(0).id], [closed(0).id], [])
    with pytest.raises(ValueError, match="one has subscribed"):
        Consumer(bus, name="one")


def test_progress_outlives_the_bus_and_a_new_consumer_starts_at_the_beginning(open_bus: Callable[[], Bus]) -> None:
    first = open_bus()
    Consumer(first)
    first.publish([closed(0)])
    first.deliver()
    first.publish([closed(1)])
    second = open_bus()
    old, new = Consumer(second), Consumer(second, name="new")
    second.deliver()
    assert old.seen == [closed(1).id]
    assert new.seen == [closed(0).id, closed(1).id]


def test_what_handlers_publish_is_delivered_too(open_bus: Callable[[], Bus]) -> None:
    bus = open_bus()
    requested = Event.of(RunRequested(mailbox="main", run_id="r", windows=(0,)), at=AT)
    bus.subscribe(Subscription("claims", Topic.WINDOW_CLOSED, lambda event: bus.publish([requested])))
    trainer = Consumer(bus, topic=Topic.RUN_REQUESTED, name="trainer")
    bus.publish([closed(0)])
    assert bus.deliver() == 2
    assert trainer.seen == [requested.id]


def test_a_later_event_of_a_key_waits_for_an_earlier_one(open_bus: Callable[[], Bus]) -> None:
    bus = open_bus()
    consumer = Consumer(bus)
    consumer.refuses = {closed(0, "a").id: 2}
    bus.publish([closed(0, "a"), closed(1, "a"), closed(0, "b"), closed(1, "b")])
    assert bus.deliver() == 6
    of_a = [id_ for id_ in consumer.seen if "/a/" in id_]
    assert of_a == [closed(0, "a").id] * 3 + [closed(1, "a").id]
    of_b = [id_ for id_ in consumer.seen if "/b/" in id_]
    assert of_b == [closed(0, "b").id, closed(1, "b").id]
    assert bus.dead() == []


def test_a_poison_event_is_set_aside_and_blocks_nobody(open_bus: Callable[[], Bus]) -> None:
    bus = open_bus()
    consumer = Consumer(bus, max_attempts=3)
    poison = closed(0, "a")
    consumer.refuses = {poison.id: 99}
    bus.publish([poison, closed(1, "a"), closed(0, "b"), closed(1, "b")])
    assert bus.deliver() == 6
    assert consumer.seen.index(closed(1, "b").id) < len(consumer.seen) - 1 - consumer.seen[::-1].index(poison.id)
    assert consumer.seen.count(poison.id) == 3 and consumer.seen[-1] == closed(1, "a").id
    (dead,) = bus.dead()
    assert (dead.event, dead.consumer, dead.attempts) == (poison, "c", 3)
    assert dead.error == f"RunError: cannot take {poison.id}"
    assert bus.deliver() == 0


def test_refusals_are_counted_across_restarts(open_bus: Callable[[], Bus]) -> None:
    for attempt in range(3):
        bus = open_bus()
        consumer = Consumer(bus, max_attempts=3)
        consumer.refuses = {closed(0).id: 99}
        bus.publish([closed(0)])
        assert bus.dead() == []
        assert bus.deliver(limit=1) == 1, attempt
    assert [dead.attempts for dead in bus.dead()] == [3]


def test_replay_gives_a_fresh_set_of_attempts(open_bus: Callable[[], Bus]) -> None:
    bus = open_bus()
    consumer, other = Consumer(bus, max_attempts=2), Consumer(bus, name="other")
    consumer.refuses = {closed(0).id: 3}
    bus.publish([closed(0), closed(1)])
    bus.deliver()
    assert len(bus.dead()) == 1 and consumer.seen[-1] == closed(1).id
    bus.replay(closed(0).id, "c")
    assert bus.dead() == []
    assert bus.deliver() == 2
    assert consumer.seen[-2:] == [closed(0).id] * 2
    assert bus.dead() == []
    assert other.seen == [closed(0).id, closed(1).id]
    consumer.refuses = {closed(2).id: 4}
    bus.publish([closed(2)])
    bus.deliver()
    bus.replay(closed(2).id, "c")
    bus.deliver()
    assert [(dead.event.id, dead.attempts) for dead in bus.dead()] == [(closed(2).id, 2)]


def test_only_what_was_set_aside_can_be_replayed(open_bus: Callable[[], Bus]) -> None:
    bus = open_bus()
    Consumer(bus)
    bus.publish([closed(0)])
    bus.deliver()
    for event_id, consumer in ((closed(0).id, "c"), (closed(0).id, "nobody"), ("nothing", "c")):
        with pytest.raises(UsageError, match=f"{consumer} has set aside no event {event_id}"):
            bus.replay(event_id, consumer)


def test_deliver_hands_over_no_more_than_it_is_asked_for(open_bus: Callable[[], Bus]) -> None:
    bus = open_bus()
    consumer = Consumer(bus)
    bus.publish([closed(window) for window in range(5)])
    assert bus.deliver(limit=0) == 0
    assert (bus.deliver(limit=2), len(consumer.seen)) == (2, 2)
    assert (bus.deliver(limit=10), len(consumer.seen)) == (3, 5)


def test_stop_lets_the_running_handler_finish_and_loses_nothing(open_bus: Callable[[], Bus]) -> None:
    bus = open_bus()
    seen: list[str] = []

    def take(event: Event) -> None:
        bus.stop()
        seen.append(event.id)

    bus.subscribe(Subscription("c", Topic.WINDOW_CLOSED, take))
    bus.publish([closed(0), closed(1)])
    assert bus.deliver() == 1
    assert bus.deliver() == 0
    again = open_bus()
    consumer = Consumer(again)
    again.deliver()
    assert seen == [closed(0).id] and consumer.seen == [closed(1).id]


def test_a_handler_that_delivers_is_not_handed_its_own_event(open_bus: Callable[[], Bus]) -> None:
    bus = open_bus()
    inner: list[int] = []
    bus.subscribe(Subscription("c", Topic.WINDOW_CLOSED, lambda event: inner.append(bus.deliver())))
    bus.publish([closed(0)])
    assert bus.deliver() == 1
    assert inner == [0]


def test_an_interrupt_is_no_refusal(open_bus: Callable[[], Bus]) -> None:
    bus = open_bus()
    calls: list[str] = []

    def interrupted(event: Event) -> None:
        calls.append(event.id)
        if len(calls) == 1:
            raise KeyboardInterrupt

    bus.subscribe(Subscription("c", Topic.WINDOW_CLOSED, interrupted, max_attempts=1))
    bus.publish([closed(0)])
    with pytest.raises(KeyboardInterrupt):
        bus.deliver()
    assert bus.deliver() == 1
    assert (len(calls), bus.dead()) == (2, [])


DYING = """
import os, signal, sys
from pipeline.events import Topic
from streams.bus.contract import Subscription
from tests.test_bus_contract import BUSES, closed

def take(event):
    print("begin", event.id, flush=True)
    if event.id == closed(int(sys.argv[3])).id:
        os.kill(os.getpid(), signal.SIGKILL)
    print("done", event.id, flush=True)

with BUSES[sys.argv[1]](sys.argv[2]) as open_bus:
    bus = open_bus()
    bus.subscribe(Subscription("c", Topic.WINDOW_CLOSED, take, max_attempts=1))
    bus.publish([closed(0), closed(1), closed(2)])
    bus.deliver()
"""


def test_kill_9_inside_a_handler_costs_neither_event_nor_attempt(kind: str, where: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    printed: list[str] = []
    for die_at in (1, 1, 2):
        done = subprocess.run(
            [sys.executable, "-c", DYING, kind, where, str(die_at)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        printed += done.stdout.splitlines()
    with BUSES[kind](where) as open_bus:
        bus = open_bus()
        consumer = Consumer(bus)
        bus.deliver()
        assert bus.dead() == []
    zero, one, two = (closed(window).id for window in range(3))
    expected = ["begin", "done"], ["begin", "begin", "begin", "done"], ["begin"]
    assert printed == [f"{word} {id_}" for id_, words in zip((zero, one, two), expected, strict=True) for word in words]
    assert consumer.seen == [two]


# The embedded bus alone


def test_the_store_is_free_while_a_handler_runs(home: Home) -> None:
    bus = EmbeddedBus(lambda: open_store(home))
    seen: list[str] = []

    def take(event: Event) -> None:
        with open_store(home) as store:
            seen.extend(row.event_id for row in store.fetch(OutboxRow))

    bus.subscribe(Subscription("c", Topic.WINDOW_CLOSED, take))
    bus.publish([closed(0)])
    assert bus.deliver() == 1
    assert seen == [closed(0).id]


def test_what_is_set_aside_is_a_row_that_people_can_query(home: Home) -> None:
    with open_store(home) as store:
        bus = EmbeddedBus(lambda: nullcontext(store))
        consumer = Consumer(bus, max_attempts=1)
        consumer.refuses = {closed(0).id: 2}
        bus.publish([closed(0)])
        bus.deliver()
        bus.replay(closed(0).id, "c")
        bus.deliver()
        rows = store.fetch(DeadLetterRow)
    assert [(row.cursor, row.stage, row.mailbox, row.attempts) for row in rows] == [(closed(0).id, "c", "main", 1)] * 2
    assert len({row.id for row in rows}) == 2


def test_a_mistake_in_a_handler_is_logged_with_its_trace(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    def mistaken(event: Event) -> None:
        raise KeyError("missing")

    with open_store(home) as store:
        bus = EmbeddedBus(lambda: nullcontext(store))
        bus.subscribe(Subscription("c", Topic.WINDOW_CLOSED, mistaken, max_attempts=1))
        bus.publish([closed(0)])
        bus.deliver()
        assert [dead.error for dead in bus.dead()] == ["KeyError: 'missing'"]
    assert "in mistaken" in caplog.text
