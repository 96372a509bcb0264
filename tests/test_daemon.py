"""The daemon: follows feeds, closes windows, retrains, answers commands, and can be stopped or killed at any moment."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import signal
import threading
from pathlib import Path
from random import Random
from typing import Any

import pytest

from pipeline.config.bus_settings import DaemonSettings
from pipeline.home import Home
from streams.cli.failures import told
from streams.daemon.logs import JsonLines
from streams.daemon.parts import Part, Running
from streams.daemon.power import Machine, this_machine, why_wait
from streams.demo.mailbox import write_mailbox
from tests.support.daemons import TINY, daemon, make_home, rows, stop, until
from tests.support.dump import rows_of, shards_of
from tests.support.maildirs import Maildir
from tests.support.program import run

COUNT = "SELECT count(*) AS n FROM messages"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "demo.mbox"
    write_mailbox(path, seed=5, messages=400)
    return path


def settings(*feeds: dict[str, Any], clock: str = "arrival", **others: Any) -> dict[str, Any]:
    return {
        "mailboxes": {"main": {"clock": clock, "feeds": list(feeds)}},
        "window": {"bootstrap": 100, "count": 50, "age": None},
        "model": TINY,
        "train": {"epochs": 1},
        **others,
    }


def mbox(path: Path) -> dict[str, Any]:
    return {"kind": "mbox", "path": str(path)}


def maildir(path: Path) -> dict[str, Any]:
    return {"kind": "maildir", "path": str(path), "poll": 1.0}


def log_of(home: Home) -> str:
    return home.root.with_name("daemon.log").read_text()


def test_read_to_the_end_it_gives_the_rows_of_an_import(archive: Path, tmp_path: Path) -> None:
    home = make_home(tmp_path / "followed", settings(mbox(archive), clock="header"))
    done = run(home.root, "run", "--until-idle")
    assert done.returncode == 0, done.stderr
    assert "windows 0 to" in done.stderr
    imported = make_home(tmp_path / "imported", settings(mbox(archive), clock="header"))
    assert run(imported.root, "import", str(archive)).returncode == 0
    assert rows_of(home) == rows_of(imported)
    assert shards_of(home) == shards_of(imported)
    again = run(home.root, "run", "--until-idle")
    assert again.returncode == 0
    assert rows_of(home) == rows_of(imported)


def test_mail_that_is_delivered_is_stored_while_commands_look_on(tmp_path: Path) -> None:
    inbox = Maildir(tmp_path / "inbox")
    inbox.deliver(1)
    home = make_home(tmp_path / "home", settings(maildir(inbox.path)))
    with daemon(home) as process:
        until(lambda: rows(home, COUNT) == [{"n": 1}])
        inbox.deliver(2)
        inbox.deliver(3)
        until(lambda: rows(home, COUNT) == [{"n": 3}])
        status = json.loads(run(home.root, "status", "--json").stdout)
        assert status["daemon"]["pid"] == process.pid
        (feed,) = status["daemon"]["feeds"]
        assert (feed["new"], feed["source"]) == (3, str(inbox.path))
        assert f"Daemon {process.pid}" in run(home.root, "status").stdout
        second = run(home.root, "run")
        assert (second.returncode, f"already, as process {process.pid}; see it with" in second.stderr) == (1, True)
        closed = run(home.root, "close", "main")
        assert closed.returncode == 0, closed.stderr
        inbox.deliver(4)
        until(
            lambda: rows(home, "SELECT window_idx AS w, n_messages AS n FROM windows ORDER BY 1")[1:] == [{"w": 1, "n": 1}]
        )
        assert stop(process) == 0
    assert f"{home.root}: stopping" in home.root.with_name("daemon.log").read_text()
    assert not home.owner_socket.exists()
    assert rows(home, COUNT) == [{"n": 4}]


def test_an_archive_is_imported_while_it_runs(archive: Path, tmp_path: Path) -> None:
    inbox = Maildir(tmp_path / "inbox")
    home = make_home(tmp_path / "home", settings(maildir(inbox.path)))
    with daemon(home) as process:
        done = run(home.root, "import", str(archive), "--json")
        assert done.returncode == 0, done.stderr
        new = json.loads(done.stdout)["new"]
        assert new > 300
        inbox.deliver(1)
        until(lambda: rows(home, COUNT) == [{"n": new + 1}])
        assert stop(process) == 0


def test_windows_close_by_age_without_mail(tmp_path: Path) -> None:
    inbox = Maildir(tmp_path / "inbox")
    inbox.deliver(1)
    second = 1 / 86_400
    home = make_home(
        tmp_path / "home", settings(maildir(inbox.path), window={"bootstrap": 1, "count": None, "age": second})
    )
    with daemon(home) as process:
        until(lambda: rows(home, "SELECT reason FROM windows WHERE closed_at IS NOT NULL") == [{"reason": "bootstrap"}])
        inbox.deliver(2)
        until(lambda: rows(home, "SELECT reason FROM windows WHERE window_idx = 1") == [{"reason": "age"}])
        assert stop(process) == 0


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_moment_it_ends_with_the_same_rows(archive: Path, tmp_path: Path, seed: int) -> None:
    rng = Random(seed)
    inbox = tmp_path / "growing.mbox"
    mails = archive.read_bytes()
    starts = [0, *(match.start() + 1 for match in re.finditer(rb"\nFrom ", mails))]
    ends = [*starts[70::70], len(mails)]
    inbox.touch()
    home = make_home(tmp_path / "home", settings({**mbox(inbox), "poll": 0.2}, clock="header"))
    kills = 0
    for begin, end in zip(starts[::70], ends, strict=True):
        with daemon(home) as process:
            before = rows(home, COUNT)[0]["n"]
            with inbox.open("ab") as file:
                file.write(mails[begin:end])
            if rng.random() < 0.5:
                until(lambda before=before: rows(home, COUNT)[0]["n"] > before)  # type: ignore[misc]
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
    assert kills >= 5
    assert run(home.root, "run", "--until-idle").returncode == 0
    undisturbed = make_home(tmp_path / "undisturbed", settings(mbox(inbox), clock="header"))
    assert run(undisturbed.root, "run", "--until-idle").returncode == 0
    # Numbers differ, as each pass over the file ends with a mark of its own; what was made of the mail does not.
    for view in ("messages", "threads", "assignments"):
        assert rows(home, f"SELECT * FROM {view} ORDER BY ALL") == rows(undisturbed, f"SELECT * FROM {view} ORDER BY ALL")
    assert shards_of(home) == shards_of(undisturbed)


@pytest.mark.slow
def test_it_retrains_by_itself_and_a_person_can_ask_it_to(archive: Path, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", settings(mbox(archive), clock="header", auto_retrain=True))
    done = run(home.root, "run", "--until-idle", timeout=280)
    assert done.returncode == 0, done.stderr
    decided = rows(home, "SELECT run_id, status, windows FROM runs")
    assert [row["status"] in ("promoted", "rejected", "abstained") for row in decided] == [True]
    by_hand = make_home(tmp_path / "by-hand", settings(mbox(archive), clock="header"))
    with daemon(by_hand) as process:
        until(lambda: rows(by_hand, "SELECT window_idx FROM windows WHERE closed_at IS NOT NULL"))
        until(lambda: json.loads(run(by_hand.root, "status", "--json").stdout)["daemon"]["feeds"][0]["doing"] == "waiting")
        told = run(by_hand.root, "retrain", "--confirm", "--json", timeout=280)
        assert told.returncode in (0, 3), told.stderr
        (report,) = json.loads(told.stdout)
        assert (report["run_id"], report["outcome"]) == (decided[0]["run_id"], decided[0]["status"])
        assert process.pid == json.loads(run(by_hand.root, "status", "--json").stdout)["daemon"]["pid"]
        assert stop(process) == 0
    assert f"run {report['run_id']} {report['outcome']}" in log_of(by_hand)


@pytest.mark.slow
def test_stopped_while_it_trains_it_goes_on_after_a_restart(archive: Path, tmp_path: Path) -> None:
    model = {"context": 256, "builtin": {**TINY["builtin"], "base_tokens": 150_000}}  # type: ignore[dict-item]
    home = make_home(tmp_path / "home", settings(mbox(archive), clock="header", auto_retrain=True, model=model))

    def training() -> bool:
        state = json.loads(run(home.root, "status", "--json").stdout)["daemon"]["training"]
        return bool(state["doing"] == "training" and state["stage"])

    with daemon(home) as process:
        until(training, 120)
        assert stop(process) == 0
    assert rows(home, "SELECT status FROM runs") == [{"status": "requested"}]
    done = run(home.root, "run", "--until-idle", timeout=280)
    assert done.returncode == 0, done.stderr
    assert [row["status"] in ("promoted", "rejected", "abstained") for row in rows(home, "SELECT status FROM runs")] == [
        True
    ]


def test_what_keeps_a_feed_from_being_read_is_told_once_and_tried_again(tmp_path: Path) -> None:
    there = tmp_path / "later.mbox"
    home = make_home(tmp_path / "home", settings({**mbox(there), "poll": 0.2}))
    with daemon(home) as process:
        until(lambda: json.loads(run(home.root, "status", "--json").stdout)["daemon"]["feeds"][0]["doing"] == "away")
        write_mailbox(there, seed=1, messages=30)
        until(lambda: rows(home, COUNT)[0]["n"] >= 30)
        assert stop(process) == 0
    assert log_of(home).count("WARNING") + log_of(home).count(str(there)) <= 4
    assert "answers again" in log_of(home)


def test_it_says_what_is_missing(archive: Path, tmp_path: Path) -> None:
    without = make_home(tmp_path / "without", {})
    done = run(without.root, "run")
    assert done.returncode == 2
    assert done.stderr.startswith("mailtide: no mailbox has a feed to follow; name them")
    nowhere = make_home(tmp_path / "nowhere", settings(maildir(tmp_path / "no-such-folder")))
    done = run(nowhere.root, "run", "--until-idle")
    assert done.returncode == 1
    assert "no-such-folder" in done.stderr.splitlines()[-1]


def test_two_daemons_cannot_have_one_home(archive: Path, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", settings(mbox(archive)))
    with daemon(home) as process:
        second = run(home.root, "run")
        assert second.returncode == 1
        assert second.stderr.startswith("mailtide: ")
        assert str(process.pid) in second.stderr
        assert stop(process) == 0


def test_power_and_load_keep_training_waiting_only_when_asked_to() -> None:
    battery, busy = Machine(on_mains=False, load=0.1), Machine(on_mains=True, load=0.9)
    assert why_wait(DaemonSettings(), battery) == why_wait(DaemonSettings(), busy) == ""
    careful = DaemonSettings(wait_for_mains=True, idle_below=0.5)
    assert why_wait(careful, battery) == "waiting for mains power"
    assert why_wait(careful, busy) == "waiting for an idle machine (load 0.90 per core, to be below 0.5)"
    assert why_wait(careful, Machine(on_mains=True, load=0.49)) == ""
    assert this_machine().load >= 0


def test_a_full_disk_ends_the_daemon_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    def fill() -> None:
        raise OSError(errno.ENOSPC, "Error writing bytes to file. Detail: [errno 28] No space left on device")

    stop = threading.Event()
    with Running([Part("main.inbox", fill)], stop) as running:
        assert stop.wait(60)
    assert isinstance(running.failure, OSError)
    assert caplog.records == []
    line, code = told(running.failure)
    assert (line.split(";")[0], code) == ("No space left on device", 1)


def test_a_log_line_is_one_json_object() -> None:
    record = logging.LogRecord("streams.daemon", logging.WARNING, "x", 1, "%d mails\nof %s", (3, "Ünal"), None)
    told = json.loads(JsonLines().format(record))
    assert told["message"] == "3 mails\nof Ünal"
    assert (told["level"], told["part"]) == ("warning", "streams.daemon")
    assert told["at"].endswith("Z")
