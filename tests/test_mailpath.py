"""Mail over a real broker: what comes out is what an import in one process makes of it, whatever dies on the way."""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

import pytest

from pipeline.arrival.people import PeopleKey
from pipeline.domain import Arrival, Clock
from pipeline.events import Topic
from pipeline.home import Home
from pipeline.store import Store
from pipeline.store.rows import FeedRow
from pipeline.times import utc_now
from pipeline.versions import VERSIONS
from streams.bus.topics import create_topics, topic_name
from streams.demo.mailbox import write_mailbox
from streams.feeds.mbox import MboxFeed
from streams.mailpath.following import Follower
from streams.mailpath.notices import progress_of
from streams.owning.owner import Owner
from streams.parsers.pool import parsed
from tests.support.daemons import until
from tests.support.dump import rows_of, shards_of
from tests.support.kafka import Broker
from tests.support.program import make, run
from tests.support.relay import relay
from tests.support.roles import role, settings_of

MAILS = 600
SETTINGS = (
    "window.bootstrap=100",
    "window.count=40",
    "window.age=null",
    "chunk.max_tokens=512",
    "mailboxes.main.clock=header",
)
LONG = 180.0
SLOW = 5
"""How many times slower than usual the machine may be."""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "demo.mbox"
    write_mailbox(path, seed=5, messages=MAILS)
    return path


@pytest.fixture(scope="module")
def embedded(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = make(tmp_path_factory.mktemp("embedded") / "home", *SETTINGS)
    done = run(home, "import", str(archive), "--mailbox", "main")
    assert done.returncode == 0, done.stderr
    return Home(home)


@dataclass
class Roles:
    """The mail path of one home, each part a process."""

    home: Home
    running: list[Popen[bytes]] = field(default_factory=list)

    def start(self, name: str, *arguments: str) -> Popen[bytes]:
        process = role(name, self.home.root, *arguments)
        self.running.append(process)
        return process

    def feed(self, archive: Path) -> Popen[bytes]:
        return self.start("feed", str(archive), "main")

    def taken(self, number: int) -> None:
        """Returns when the owner has told that it took this many of a feed's numbers."""
        bus = settings_of(self.home).bus

        async def follow() -> None:
            follower = await Follower.opened(bus, topic_name(bus, Topic.PROGRESS), range(bus.partitions))
            try:
                async with asyncio.timeout(LONG):
                    last = 0
                    while last < number:
                        told = [progress_of(record) for record in await follower.more()]
                        last = max([last, *(each.last_number for each in told if each is not None)])
            finally:
                await follower.close()

        asyncio.run(follow())

    def stop(self) -> None:
        """Each ends by itself, and well."""
        for process in self.running:
            process.terminate()
        for process in self.running:
            process.wait(LONG)

    def end(self) -> None:
        for process in self.running:
            process.kill()
            process.wait()


@pytest.fixture
def roles(broker: Broker, tmp_path: Path) -> Iterator[Roles]:
    home = make(
        tmp_path / "home",
        *SETTINGS,
        "bus.kind=kafka",
        f"bus.brokers={broker.address}",
        f"bus.prefix=t{uuid.uuid4().hex[:8]}.",
        "bus.partitions=3",
        "bus.in_flight=150",
        "bus.claim_check=2500",
    )
    roles = Roles(Home(home))
    asyncio.run(create_topics(settings_of(roles.home).bus))
    yield roles
    roles.end()


@pytest.mark.parametrize("parsers", [1, 2, 4])
def test_the_same_rows_and_shards_as_in_one_process(roles: Roles, archive: Path, embedded: Home, parsers: int) -> None:
    for _ in range(parsers):
        roles.start("parse")
    roles.start("assign")
    assert roles.feed(archive).wait(LONG) == 0
    roles.stop()
    assert [process.returncode for process in roles.running] == [0] * (parsers + 2)
    assert rows_of(roles.home) == rows_of(embedded)
    assert shards_of(roles.home) == shards_of(embedded)
    assert any((roles.home.root / "claims").rglob("*"))


def test_kills_of_every_part_leave_the_same_rows_and_shards(
    roles: Roles, broker: Broker, archive: Path, embedded: Home
) -> None:
    parser, assigner, feed = roles.start("parse"), roles.start("assign"), roles.feed(archive)
    roles.taken(100)
    # First, as a part that is just starting ends when there is no broker.
    broker.kill()
    assert feed.poll() is None
    broker.start()
    roles.taken(200)
    parser.kill()
    assert feed.poll() is None
    roles.start("parse")
    roles.taken(300)
    assigner.kill()
    assert feed.poll() is None
    assigner.wait()
    roles.start("assign")
    roles.taken(400)
    feed.kill()
    feed.wait()
    feed = roles.feed(archive)
    assert feed.wait(LONG) == 0
    roles.stop()
    assert rows_of(roles.home) == rows_of(embedded)
    assert shards_of(roles.home) == shards_of(embedded)


def test_every_part_stops_at_once_also_without_its_broker(roles: Roles, broker: Broker, archive: Path) -> None:
    roles.start("parse")
    roles.start("assign")
    feed = roles.feed(archive)
    roles.taken(100)
    broker.kill()
    try:
        assert feed.poll() is None
        for process in roles.running:
            process.terminate()
        assert [process.wait(10 * SLOW) for process in roles.running] == [0, 0, 0]
    finally:
        broker.start()


def test_a_second_home_is_refused_the_partitions_of_the_first(roles: Roles, archive: Path, tmp_path: Path) -> None:
    roles.start("parse")
    roles.start("assign")
    roles.feed(archive)
    roles.taken(1)
    other = tmp_path / "other" / "home"
    shutil.copytree(roles.home.root, other, ignore=shutil.ignore_patterns("store*", "bodies*", "assigner*", "feeds"))
    with Store.create(Home(other), settings_of(Home(other)), PeopleKey.read(Home(other).people_key), VERSIONS):
        pass
    refused = role("assign", other)
    assert refused.wait(LONG) == 1
    said = (other.parent / "assign.log").read_text().splitlines()[-1]
    assert f"is assigned by the home {roles.home.root} on " in said
    assert "give this home other partitions in bus.assign" in said


@pytest.mark.parametrize("connections", [1, 2, 3])
def test_a_parser_whose_broker_goes_while_it_starts_says_so(
    roles: Roles, broker: Broker, tmp_path: Path, connections: int
) -> None:
    settings = settings_of(roles.home).bus
    with relay(int(broker.address.rpartition(":")[2]), connections) as wire:
        address = f"127.0.0.1:{wire.port}"
        home = make(
            tmp_path / "late",
            "bus.kind=kafka",
            f"bus.brokers={address}",
            f"bus.prefix={settings.prefix}",
            "bus.partitions=3",
        )
        log = tmp_path / "late.log"
        late = role("parse", home, log=log)
        roles.running.append(late)
        assert late.wait(LONG) == 1
    assert log.read_text().splitlines()[-1].startswith(f"pipeline.errors.BusError: no broker answers at {address}")


class Dying(Owner):
    """An owner whose process ends after the rows of a closing are stored, and before its shard is."""

    def seal(self, mailbox: str) -> list[int]:
        raise KeyboardInterrupt


def test_a_shard_that_a_crash_left_undone_is_written_at_the_start(roles: Roles, archive: Path, tmp_path: Path) -> None:
    settings = settings_of(roles.home)
    feed = MboxFeed(Home(tmp_path / "reader"), "main", archive, feed="main.archive")
    mails = [parsed(item) for item in feed.items(after=0) if isinstance(item, Arrival)]
    with Store.open(roles.home, settings, VERSIONS) as store:
        owner = Owner(store, roles.home, settings, utc_now)
        owner.register("main", Clock.HEADER, [FeedRow("main", "main.archive", "mbox", "archive", utc_now())])
        with pytest.raises(KeyboardInterrupt):
            Dying(store, roles.home, settings, utc_now).take("main", mails[:110])
        assert store.scalar("SELECT count(*) FROM closings") == 1
        assert store.scalar("SELECT count(*) FROM shard_rows") == 0
    assigner = roles.start("assign")
    until(lambda: (roles.home.shard("main", 0) / "chunks.parquet").exists() or assigner.poll() is not None)
    roles.stop()
    with Store.open(roles.home, settings, VERSIONS) as store:
        assert store.scalar("SELECT count(*) FROM shard_rows") == 1
