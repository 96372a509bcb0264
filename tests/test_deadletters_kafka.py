"""Dead letters of the store and of a broker's topics: one list, one form of id, and the store's part without the broker."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.settings import Settings
from pipeline.domain import Arrival, Clock
from pipeline.events import Event, Topic, WindowClosed
from pipeline.home import Home
from pipeline.store import Store
from pipeline.store.rows import FeedRow
from pipeline.times import utc_now
from streams.bus.connection import client_options, ended, started
from streams.bus.contract import Subscription
from streams.bus.deadletters import Origin, dead_record
from streams.bus.envelope import Record
from streams.bus.kafka import KafkaBus
from streams.bus.topics import create_topics, dead_letter_name, topic_name
from streams.feeds.mbox import MboxFeed
from streams.mailpath.messages import handed_record
from streams.owning.owner import Owner
from streams.parsers.pool import parsed
from tests.support.archives import mail, mboxrd
from tests.support.kafka import Broker
from tests.support.program import complaint, make, run
from tests.support.records import publish
from tests.support.roles import settings_of

LONG_ID = "main.archive/2"
EVENT_ID = "window.closed/main/0@trainer#2"
MAIL_ID = "message.received/main.inbox/7@parse#1"
CLOSED = WindowClosed(
    mailbox="main", window_idx=0, reason="count", n_messages=1, n_chunks=1, shard_path="p", shard_sha256="0" * 64
)


@pytest.fixture
def home(broker: Broker, tmp_path: Path) -> Home:
    """One dead letter in the store, three on topics: an event, a mail, and a record that is not ours."""
    root = make(
        tmp_path / "home",
        "bus.kind=kafka",
        f"bus.brokers={broker.address}",
        f"bus.prefix=d{uuid.uuid4().hex[:8]}.",
        "bus.partitions=1",
    )
    home = Home(root)
    in_the_store(home, tmp_path / "archive.mbox")
    settings = settings_of(home)
    asyncio.run(create_topics(settings.bus))
    refused(settings, Event.of(CLOSED, at=utc_now()))
    received = topic_name(settings.bus, Topic.MESSAGE_RECEIVED)
    raw = handed_record(Arrival("main", "main.inbox", 7, "7", utc_now(), "00" * 32, b"Subject: hi\n\n\x1b[2Jhello\n"))
    publish(
        settings.bus,
        dead_letter_name(settings.bus, Topic.MESSAGE_RECEIVED),
        dead_record(raw, "parse", 1, "it is of a newer version", Origin(1_000, received, 0, 3)),
        dead_record(Record(b"k", b"bytes", ()), "parse", 1, "it is no event of mailtide", Origin(2_000, received, 0, 4)),
    )
    return home


def in_the_store(home: Home, archive: Path) -> None:
    archive.write_bytes(mboxrd([mail(0), mail(1, "x" * 4_000), mail(2)]))
    with Store.open(home, None, None) as store:
        owner = Owner(store, home, Settings(), utc_now)
        feed = MboxFeed(home, "main", archive, "main.archive", settle=0, max_mail=1_000)
        owner.register("main", Clock.ARRIVAL, [FeedRow("main", feed.name, feed.kind, feed.source, utc_now())])
        owner.take("main", [parsed(item) if isinstance(item, Arrival) else item for item in feed.items(0)])


def refused(settings: Settings, event: Event) -> None:
    def refuse(event: Event) -> None:
        raise ValueError("this consumer wants none")

    with KafkaBus(settings.bus) as bus:
        bus.subscribe(Subscription("trainer", Topic.WINDOW_CLOSED, refuse, max_attempts=2))
        bus.publish([event])
        assert bus.deliver() == 2


def everything(settings: Settings, topic: str) -> list[bytes]:
    from aiokafka import AIOKafkaConsumer, TopicPartition

    async def read() -> list[bytes]:
        consumer = await started(AIOKafkaConsumer(**client_options(settings.bus)), settings.bus)
        try:
            part = TopicPartition(topic, 0)
            consumer.assign([part])
            await consumer.seek_to_beginning(part)
            end = (await consumer.end_offsets([part]))[part]
            return [(await consumer.getone()).value for _ in range(end)]
        finally:
            await ended(consumer)

    return asyncio.run(read())


def listed(home: Home) -> dict[str, dict[str, Any]]:
    done = run(home.root, "deadletters", "list", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return {each["id"]: each for each in json.loads(done.stdout)}


def test_one_list_shown_and_replayed(home: Home) -> None:
    settings = settings_of(home)
    received = topic_name(settings.bus, Topic.MESSAGE_RECEIVED)
    foreign_id = f"{received}/0/4@parse#1"
    found = listed(home)
    assert found.keys() == {LONG_ID, EVENT_ID, MAIL_ID, foreign_id}
    assert {each["replayed"] for each in found.values()} == {""}
    assert (found[EVENT_ID]["mailbox"], found[EVENT_ID]["stage"], found[EVENT_ID]["attempts"]) == ("main", "trainer", 2)
    assert found[EVENT_ID]["reason"] == "ValueError: this consumer wants none"
    assert (found[MAIL_ID]["mailbox"], found[MAIL_ID]["feed"]) == ("main", "main.inbox")
    assert (found[foreign_id]["mailbox"], found[foreign_id]["cursor"]) == ("", f"{received}/0/4")

    shown = run(home.root, "deadletters", "show", MAIL_ID)
    assert shown.returncode == 0, shown.stderr
    assert f"record {received}/0/3" in shown.stdout and r"\x1b[2Jhello" in shown.stdout
    assert run(home.root, "deadletters", "show", "--raw", foreign_id).stdout == "bytes"

    asked = run(home.root, "deadletters", "replay", EVENT_ID, LONG_ID, MAIL_ID, "--json")
    assert (asked.returncode, asked.stderr) == (0, "")
    outcomes = [(each["id"], each["outcome"]) for each in json.loads(asked.stdout)]
    assert outcomes == [(EVENT_ID, "pending"), (LONG_ID, "new: 1@example.org"), (MAIL_ID, "pending")]
    assert everything(settings, received) == [b"Subject: hi\n\n\x1b[2Jhello\n"]
    seen: list[str] = []
    with KafkaBus(settings.bus) as bus:
        bus.subscribe(Subscription("trainer", Topic.WINDOW_CLOSED, lambda event: seen.append(event.id)))
        bus.deliver()
    assert seen == ["window.closed/main/0"]
    again = run(home.root, "deadletters", "replay", EVENT_ID)
    assert again.returncode == 3 and "replayed already (pending)" in again.stdout

    rest = run(home.root, "deadletters", "replay", "--all", "--json")
    assert [each["id"] for each in json.loads(rest.stdout)] == [foreign_id]
    assert run(home.root, "deadletters", "replay", "--all").returncode == 3
    unknown = run(home.root, "deadletters", "replay", "x/1")
    assert unknown.returncode == 2 and "there is no dead letter 'x/1'" in complaint(unknown)


def test_without_the_broker_the_stores_part_is_told(home: Home) -> None:
    config = home.config
    (address,) = [line.split()[-1] for line in config.read_text().splitlines() if "brokers" in line]
    config.write_text(config.read_text().replace(address, "127.0.0.1:1"))
    told = run(home.root, "deadletters", "list", "--json")
    assert told.returncode == 1
    assert [each["id"] for each in json.loads(told.stdout)] == [LONG_ID]
    assert "the broker's dead letters are missing here: no broker answers at 127.0.0.1:1" in complaint(told)
    assert LONG_ID in run(home.root, "deadletters", "show", LONG_ID).stdout
    assert "no broker answers" in complaint(run(home.root, "deadletters", "show", EVENT_ID))
    replayed = run(home.root, "deadletters", "replay", "--all", "--json")
    assert [each["outcome"] for each in json.loads(replayed.stdout)] == ["new: 1@example.org"]
    assert replayed.returncode == 1 and "no broker answers" in complaint(replayed)
