"""`mailtide retrain --confirm` where runs go over a broker: handed on by the daemon, or told at once what is missing."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from pipeline.errors import RunError
from pipeline.events import Event, Topic
from pipeline.home import Home
from streams.bus.contract import Subscription
from streams.bus.kafka import KafkaBus
from streams.demo.mailbox import write_mailbox
from streams.runs import requesting
from streams.runs.claims import ALL_WAITING
from streams.runs.retraining import TRAINER
from streams.runs.sessions import retrain
from tests.support.daemons import TINY, daemon, make_home, rows, stop
from tests.support.kafka import Broker
from tests.support.program import complaint, run
from tests.support.roles import settings_of

LONG = 240.0


@pytest.fixture
def home(broker: Broker, tmp_path: Path) -> Home:
    """A Kafka home with closed windows that nothing was trained on."""
    archive = tmp_path / "demo.mbox"
    write_mailbox(archive, seed=5, messages=300)
    home = make_home(
        tmp_path / "home",
        {
            "window": {"bootstrap": 200, "age": None},
            "model": TINY,
            "train": {"epochs": 1},
            "bus": {
                "kind": "kafka",
                "brokers": broker.address,
                "prefix": f"r{uuid.uuid4().hex[:8]}.",
                "partitions": 1,
            },
        },
    )
    for arguments in (("topics", "create"), ("import", str(archive), "--mailbox", "main")):
        done = run(home.root, *arguments)
        assert done.returncode == 0, done.stderr
    return home


def test_without_a_daemon_it_says_what_to_start_and_asks_for_nothing(home: Home) -> None:
    refused = run(home.root, "retrain", "--confirm")
    assert refused.returncode == 1
    said = complaint(refused)
    assert "runs of this home go over a broker, and no daemon is here to hand them on" in said
    assert f"start `mailtide --home {home.root} run` with the roles assign and train" in said
    assert rows(home, "SELECT * FROM runs") == []


def _silent(done: float, total: float, text: str) -> None:
    """Nobody looks."""


def test_it_waits_for_a_trainer_and_takes_up_what_one_has_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(home)

    def refuse(event: Event) -> None:
        raise ValueError("this one cannot")

    with daemon(home, "--role", "assign") as assigner:
        monkeypatch.setattr(requesting, "ABSENT_SECONDS", 0.0)
        with pytest.raises(RunError, match="is requested and waits: no process trains; start `mailtide run`"):
            list(retrain(home, settings, "main", ALL_WAITING, _silent))
        with KafkaBus(settings.bus) as bus:
            bus.subscribe(Subscription(TRAINER, Topic.RUN_REQUESTED, refuse, max_attempts=1))
            while not bus.deliver():
                pass

            def meanwhile(done: float, total: float, text: str) -> None:
                bus.deliver()

            with pytest.raises(RunError, match="the run cannot go on: ValueError: this one cannot"):
                list(retrain(home, settings, "main", ALL_WAITING, meanwhile))
        ((letter),) = json.loads(run(home.root, "deadletters", "list", "--json").stdout)
        (asked,) = rows(home, "SELECT run_id, status FROM runs")
        assert (letter["id"], asked["status"]) == (f"run.requested/main/{asked['run_id']}@trainer#1", "requested")
        with daemon(home, "--role", "train") as trainer:
            done = run(home.root, "retrain", "--confirm", "--json", timeout=LONG)
            assert done.returncode in (0, 3), done.stderr
            (report,) = json.loads(done.stdout)
            assert report["run_id"] == asked["run_id"]
            assert report["outcome"] in ("promoted", "rejected", "abstained")
            assert [stop(trainer), stop(assigner)] == [0, 0]
