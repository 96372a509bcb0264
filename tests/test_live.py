"""Mail that is sent becomes an adapter, and nobody touches a thing: every server is real, every role its own process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.home import Home
from tests.support.kafka import Broker
from tests.support.live import FINAL, MAILBOX, USER, Live, invented_mail, live
from tests.support.program import run

MAILS = 300
SETTINGS: dict[str, Any] = {
    "seed": 7,
    "split": {"train": 0.6, "val": 0.3, "test": 0.1},
    "window": {"bootstrap": 180, "count": 60, "age": None},
    "chunk": {"max_tokens": 256},
    "model": {
        "context": 256,
        "builtin": {"base_tokens": 30_000, "width": 64, "layers": 2, "heads": 2, "vocabulary": 1024},
    },
    "train": {"epochs": 1, "batch_tokens": 1024},
    "gate": {"max_loss": 0.1, "max_drift": 0.15},
}
"""As the demo's, on a model and windows of a fifth of the size: the gate may promote, reject or abstain."""
EVIDENCE = {
    "request.json",
    "exclusions.parquet",
    "manifest.parquet",
    "schedule.parquet",
    "coverage.parquet",
    "metrics.jsonl",
    "losses.parquet",
    "eval_results.json",
    "best_checkpoint.txt",
    "result.json",
    "receipt.json",
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_mail_that_is_sent_ends_as_a_verdict(broker: Broker, tmp_path: Path) -> None:
    mailbox, mails = invented_mail(tmp_path, MAILS)
    with live(tmp_path, broker, mailbox, **SETTINGS) as room:
        sent = room.send(mails)
        assert sent >= MAILS
        room.until(lambda: stored(room) == sent, 600)
        room.until(lambda: room.undecided() == [], 900)

        counts = room.rows("SELECT (SELECT count(*) FROM messages) AS new, (SELECT count(*) FROM duplicates) AS again")
        assert counts == [{"new": mailbox.messages, "again": mailbox.duplicates}]
        assert room.rows("SELECT count(*) AS n FROM dead_letters") == [{"n": 0}]
        check_runs(room)
        check_deployment(room)
        with room.server.connection(USER, "INBOX") as client:
            assert set(client.search("UNSEEN")) == set(client.search("ALL"))
        assert room.stop() == dict.fromkeys(room.processes, 0)
    verified = run(room.home.root, "registry", "verify")
    assert verified.returncode == 0, verified.stderr


def stored(room: Live) -> int:
    """Mails that are durable, as messages or as repeats of one."""
    (row,) = room.rows("SELECT (SELECT count(*) FROM messages) + (SELECT count(*) FROM duplicates) AS n")
    return int(row["n"])


def check_runs(room: Live) -> None:
    """At least one run was decided, each left all its evidence, and every closing is in exactly one of those promoted."""
    runs = room.rows("SELECT run_id, status, windows FROM runs")
    assert runs
    for row in runs:
        assert row["status"] in FINAL
        there = {path.name for path in room.home.run(row["run_id"]).iterdir()}
        assert there >= EVIDENCE, row
    learned = [window for row in runs if row["status"] == "promoted" for window in row["windows"]]
    assert len(learned) == len(set(learned))
    verdicts = room.rows("SELECT event FROM journal WHERE event IN ('promoted', 'rejected', 'abstained')")
    assert sorted(row["event"] for row in verdicts) == sorted(row["status"] for row in runs)


def check_deployment(room: Live) -> None:
    """The link is at the champion, or is not there without one."""
    champions = room.rows("SELECT adapter_id FROM adapters WHERE status = 'champion'")
    promoted = room.rows("SELECT adapter_id FROM runs WHERE status = 'promoted'")
    assert bool(champions) == bool(promoted)
    if champions:
        room.until(lambda: points_at(room.home) == champions[0]["adapter_id"])
    else:
        assert points_at(room.home) is None


def points_at(home: Home) -> str | None:
    """The adapter that is deployed."""
    link = home.champion_link(MAILBOX)
    return link.resolve().name if link.is_symlink() else None
