"""What stands in the way of mail on its way over a broker: told in one line, held up nobody behind it, and nothing lost."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import uuid
from contextlib import ExitStack
from pathlib import Path
from subprocess import Popen

import pytest

from pipeline.domain import Arrival, DeadLetter
from pipeline.errors import BusError
from pipeline.events import Topic
from pipeline.home import Home
from pipeline.times import utc_now
from streams.bus.envelope import Record
from streams.bus.topics import create_topics, topic_name
from streams.mailpath.claim_checks import ClaimChecks
from streams.mailpath.messages import answer_record, handed_of, handed_record
from tests.support.archives import mail, mboxrd
from tests.support.daemons import make_home, rows
from tests.support.disks import small_disk
from tests.support.kafka import Broker
from tests.support.program import make, run
from tests.support.records import publish
from tests.support.roles import role, settings_of

LONG = 300.0
BIG = b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\nText.\n--b\nContent-Type: image/png\n\n" + b"0" * (48 << 20)
MEMORY_MB = 64


def ended(process: Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()


def test_poison_and_strangers_hold_up_nobody(broker: Broker, tmp_path: Path) -> None:
    home = Home(
        make(
            tmp_path / "home",
            "bus.kind=kafka",
            f"bus.brokers={broker.address}",
            f"bus.prefix=f{uuid.uuid4().hex[:8]}.",
            "bus.partitions=2",
            "parse.processes=1",
            f"parse.memory_mb={MEMORY_MB}",
        )
    )
    bus = settings_of(home).bus
    asyncio.run(create_topics(bus))
    archive = tmp_path / "archive.mbox"
    archive.write_bytes(mboxrd([*(mail(number) for number in range(10)), BIG, *(mail(number) for number in range(10, 20))]))
    stranger = Record(b"k", b"no event at all", ())
    newer = handed_record(Arrival("main", "main.other", 1, "1", utc_now(), "00" * 32, b"hi"))
    newer = Record(
        newer.key,
        newer.value,
        tuple((name, value.replace(b"received.v1", b"received.v2")) for name, value in newer.headers),
    )
    unannounced = answer_record(DeadLetter("main", "main.nobody", 1, "1", utc_now(), "parse", "why", 1, b""))
    with ExitStack() as stack:
        processes = [role("parse", home.root), role("assign", home.root)]
        for process in processes:
            stack.callback(ended, process)
        publish(bus, topic_name(bus, Topic.MESSAGE_RECEIVED), stranger, newer)
        publish(bus, topic_name(bus, Topic.MESSAGE_PARSED), stranger, unannounced)
        feed = role("feed", home.root, str(archive), "main")
        stack.callback(ended, feed)
        assert feed.wait(LONG) == 0
        for process in processes:
            process.terminate()
        assert [process.wait(LONG) for process in processes] == [0, 0]
    assert rows(home, "SELECT count(*) AS n FROM messages") == [{"n": 20}]
    told = json.loads(run(home.root, "deadletters", "list", "--json").stdout)
    (poison,) = [each for each in told if each["attempts"] > 1]
    assert (poison["stage"], poison["attempts"]) == ("parse", 3)
    assert poison["reason"] == f"parsing needed more than {MEMORY_MB} MB of memory"
    strangers = [each for each in told if each is not poison]
    assert sorted(each["stage"] for each in strangers) == ["assign", "assign", "parse", "parse"]
    reasons = " ".join(each["reason"] for each in strangers)
    assert reasons.count("it is no event of mailtide") == 2
    assert "newer version, mail.message.received.v2" in reasons and "update mailtide, then replay it" in reasons
    assert "it is of the feed main.nobody, which was not announced" in reasons


def test_a_full_claim_check_folder_lets_nothing_out_and_nothing_is_lost(tmp_path: Path) -> None:
    raw = os.urandom(3 << 20)
    record = handed_record(Arrival("main", "main.inbox", 1, "1", utc_now(), "00" * 32, raw))
    with small_disk(tmp_path / "disk", megabytes=4) as place:
        claims = ClaimChecks(Home(place), limit=512_000)
        ballast = place / "ballast"
        ballast.write_bytes(bytes(2 << 20))
        with pytest.raises(
            BusError, match=r"a mail of 3,145,728 bytes cannot be put down in .*claims: No space left"
        ) as full:
            claims.checked_in(record)
        assert full.value.hint == "make room there and start again; nothing is lost"
        assert not [path for path in (place / "claims").rglob("*") if path.is_file()]
        ballast.unlink()
        assert handed_of(claims.redeemed(claims.checked_in(record))) == handed_of(record)


def test_a_feed_goes_on_once_there_is_room_for_its_large_mail(broker: Broker, tmp_path: Path) -> None:
    archive = tmp_path / "archive.mbox"
    large = b"Subject: large\nMessage-ID: <large@example.org>\n\n" + b"word " * 400_000
    archive.write_bytes(mboxrd([mail(0), large, mail(1)]))
    with small_disk(tmp_path / "disk", megabytes=64) as place, ExitStack() as stack:
        home = Home(
            make(
                place / "home",
                "bus.kind=kafka",
                f"bus.brokers={broker.address}",
                f"bus.prefix=g{uuid.uuid4().hex[:8]}.",
                "bus.partitions=1",
            )
        )
        asyncio.run(create_topics(settings_of(home).bus))
        ballast = place / "ballast"
        log = tmp_path / "roles.log"

        def fill(room: int) -> None:
            ballast.write_bytes(bytes(max(0, shutil.disk_usage(place).free - room)))

        fill(1 << 20)
        feed = role("feed", home.root, str(archive), "main", log=log)
        stack.callback(ended, feed)
        for name in ("parse", "assign"):
            stack.callback(ended, role(name, home.root, log=tmp_path / f"{name}.log"))
        assert feed.wait(LONG) == 1
        assert "cannot be put down" in log.read_text().splitlines()[-1]
        ballast.unlink()
        again = role("feed", home.root, str(archive), "main", log=log)
        stack.callback(ended, again)
        assert again.wait(LONG) == 0
        stack.close()
        keys = rows(home, "SELECT message_key FROM messages ORDER BY arrival_ordinal")
        assert [row["message_key"] for row in keys] == ["0@example.org", "large@example.org", "1@example.org"]


@pytest.mark.parametrize("name", ["feed", "parse", "assign"])
def test_without_a_broker_each_role_says_so(tmp_path: Path, name: str) -> None:
    settings = {
        "mailboxes": {"main": {"feeds": [{"kind": "maildir", "path": str(tmp_path)}]}},
        "bus": {"kind": "kafka", "brokers": "127.0.0.1:1"},
    }
    home = make_home(tmp_path / "home", settings)
    done = run(home.root, "run", "--role", name, "--until-idle")
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said == "mailtide: no broker answers at 127.0.0.1:1; start it, or name another in bus.brokers"
