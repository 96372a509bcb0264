"""The daemon's roles over a real broker: in one process, or each in one of its own, with the same rows and verdicts."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pipeline.home import Home
from pipeline.runs.requests import read_result
from streams.daemon.running import ROLES
from streams.demo.mailbox import write_mailbox
from tests.support.daemons import TINY, daemon, make_home, rows, stop, until
from tests.support.dump import shards_of
from tests.support.kafka import Broker
from tests.support.maildirs import Maildir
from tests.support.program import run

FINAL = ("promoted", "rejected", "abstained")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "demo.mbox"
    write_mailbox(path, seed=5, messages=400)
    return path


def settings(feed: dict[str, Any], broker: Broker | None, prefix: str, **others: Any) -> dict[str, Any]:
    bus = (
        {"kind": "kafka", "brokers": broker.address, "prefix": prefix, "partitions": 2} if broker else {"kind": "embedded"}
    )
    return {
        "mailboxes": {"main": {"clock": "header", "feeds": [feed]}},
        "window": {"bootstrap": 150, "count": 100, "age": None},
        "model": TINY,
        "train": {"epochs": 1},
        "bus": bus,
        **others,
    }


def topics(home: Home) -> None:
    made = run(home.root, "topics", "create")
    assert made.returncode == 0, made.stderr


def test_all_roles_in_one_process_give_the_rows_of_one_without_a_broker(
    broker: Broker, archive: Path, tmp_path: Path
) -> None:
    feed = {"kind": "mbox", "path": str(archive)}
    home = make_home(tmp_path / "home", settings(feed, broker, "one."))
    topics(home)
    done = run(home.root, "run", "--until-idle")
    assert done.returncode == 0, done.stderr
    alone = make_home(tmp_path / "alone", settings(feed, None, ""))
    assert run(alone.root, "run", "--until-idle").returncode == 0
    for view in ("messages", "threads", "assignments"):
        told = [rows(each, f"SELECT * FROM {view} ORDER BY ALL") for each in (home, alone)]
        assert told[0] == told[1]
        assert told[0]
    assert shards_of(home) == shards_of(alone)


def test_without_topics_it_says_how_to_make_them(broker: Broker, archive: Path, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", settings({"kind": "mbox", "path": str(archive)}, broker, "none."))
    done = run(home.root, "run", "--until-idle")
    assert done.returncode == 1
    assert f"run `mailtide --home {home.root} topics create`" in done.stderr.splitlines()[-1]


def test_roles_are_apart_only_with_a_broker(archive: Path, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", settings({"kind": "mbox", "path": str(archive)}, None, ""))
    done = run(home.root, "run", "--role", "parse")
    assert done.returncode == 2
    assert done.stderr.startswith("mailtide: without a broker all roles are one process; set bus: kafka")


@pytest.mark.slow
def test_every_role_in_its_own_process_ends_with_a_verdict(broker: Broker, archive: Path, tmp_path: Path) -> None:
    inbox = Maildir(tmp_path / "inbox")
    feed = {"kind": "maildir", "path": str(inbox.path), "poll": 1.0}
    together = {"epochs": 1, "processes": 2}
    home = make_home(tmp_path / "home", settings(feed, broker, "apart.", auto_retrain=True, train=together))
    topics(home)
    mails = archive.read_bytes().split(b"\nFrom ")
    with ExitStack() as stack:
        processes = [
            stack.enter_context(daemon(home, "--role", role)) for role in ("assign", *ROLES[:2], "parse", *ROLES[3:])
        ]
        for number, mail in enumerate(mails, start=1):
            inbox.deliver(number, mail.partition(b"\n")[2])

        def decided() -> bool:
            return any(row["status"] in FINAL for row in rows(home, "SELECT status FROM runs"))

        until(decided, 400)
        results = [read_result(path.parent) for path in (home.root / "runs").glob("*/result.json")]
        assert results and all(result.environment["processes"] == "2" for result in results)
        status = json.loads(run(home.root, "status", "--json").stdout)
        assert status["daemon"]["roles"] == ["assign"]
        champion = status["mailboxes"][0]["champion"]
        if champion is not None:
            link = home.champion_link("main")
            until(lambda: link.is_symlink() and link.resolve().name == champion)
        forgotten = forget_the_busiest(home)
        until(lambda: decided_beside(home, forgotten["runs"]), 240)
        assert [stop(process) for process in processes] == [0] * len(processes)
    assert rows(home, "SELECT count(*) AS n FROM messages")[0]["n"] > 350
    verified = run(home.root, "registry", "verify")
    assert verified.returncode == 0, verified.stdout
    assert not any(home.adapter(one).exists() for one in forgotten["adapters"])


def forget_the_busiest(home: Home) -> dict[str, Any]:
    """Erases whoever wrote most, through the role that holds the store; what the receipt says was to go."""
    (busiest,) = rows(home, "SELECT sender FROM messages GROUP BY sender ORDER BY count(*) DESC, sender LIMIT 1")
    done = run(home.root, "forget", "--sender", busiest["sender"], "--confirm", "--json")
    assert done.returncode == 0, done.stderr
    receipt: dict[str, Any] = json.loads(done.stdout)
    assert "is asked for" in receipt["retrain"] and any("broker" in place for place in receipt["elsewhere"])
    assert rows(home, f"SELECT sender FROM messages WHERE sender = '{busiest['sender']}'") == []
    gone: dict[str, Any] = receipt["plan"]
    assert gone["messages"] and gone["runs"] and gone["adapters"]
    return gone


def decided_beside(home: Home, runs: list[str]) -> bool:
    """Whether another run than these has a verdict: the one that takes their place."""
    return any(
        row["status"] in FINAL and row["run_id"] not in runs for row in rows(home, "SELECT run_id, status FROM runs")
    )
