"""Mail that is sent becomes an adapter, and nobody touches a thing: every server is real, every role its own process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.kafka import Broker
from tests.support.live import FINAL, MAILS, SMALL, USER, Live, invented_mail, live
from tests.support.program import run

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
    with live(tmp_path, broker, mailbox, **SMALL) as room:
        sent = room.send(mails)
        assert sent >= MAILS
        room.until(lambda: room.stored() == sent, 600)
        room.until(room.settled, 900)

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
        room.until(lambda: room.deployed() == champions[0]["adapter_id"])
    else:
        assert room.deployed() is None
