"""An archive replayed as if live: time follows its dates, and a real daemon makes of it what an import would."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path

import pytest

from streams.demo.mailbox import write_mailbox
from streams.simulation import deliveries
from tests.support.daemons import TINY, make_home, rows
from tests.support.program import complaint, execute, mailtide, run

START = datetime(2024, 5, 1, 12)


def archive_of(path: Path, *dates: datetime) -> Path:
    """An mbox whose mails came on these dates, by their headers; the file's own times are later."""
    with path.open("wb") as file:
        for number, date in enumerate(dates):
            mail = EmailMessage()
            mail["From"], mail["Subject"], mail["Message-ID"] = (
                "ann@one.example",
                f"mail {number}",
                f"<{number}@one.example>",
            )
            mail["Date"] = format_datetime(date)
            mail.set_content("words")
            file.write(b"From ann@one.example Mon Nov 16 10:00:00 2026\n" + mail.as_bytes() + b"\n")
    return path


def test_time_follows_the_dates_but_not_wrong_ones(tmp_path: Path) -> None:
    hour = timedelta(hours=1)
    dates = (START, START + 2 * hour, START + hour, START + 400 * 24 * hour, START + 3 * hour)
    found = [delivery for delivery, _ in deliveries(archive_of(tmp_path / "a.mbox", *dates))]
    assert [one.after for one in found] == [0.0, 7200.0, 0.0, 0.0, 3600.0]
    assert [one.at for one in found] == [START, START + 2 * hour, START + 2 * hour, START + 2 * hour, START + 3 * hour]
    shares = [share for _, share in deliveries(tmp_path / "a.mbox")]
    assert shares == sorted(shares)
    assert 0.8 < shares[-1] <= 1.0


@pytest.mark.slow
def test_a_simulation_makes_of_an_archive_what_an_import_does(tmp_path: Path) -> None:
    archive = tmp_path / "a.mbox"
    write_mailbox(archive, seed=5, messages=300)
    settings = {"window": {"bootstrap": 120, "count": 100, "age": None}, "model": TINY, "train": {"epochs": 1}}
    imported = make_home(tmp_path / "imported", {**settings, "mailboxes": {"main": {"clock": "header"}}})
    assert run(imported.root, "import", str(archive)).returncode == 0
    command = mailtide(
        tmp_path,
        "simulate",
        str(archive),
        "--keep",
        str(tmp_path / "simulated"),
        "--config",
        str(tmp_path / "imported.yaml"),
    )
    done = execute([*command, "--json"], 280)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["windows"]
    sql = "SELECT window_idx, opened_at, closed_at, reason, n_messages, n_chunks FROM windows ORDER BY window_idx"
    assert [{name: one[name] for name in rows(imported, sql)[0]} for one in told] == rows(imported, sql)
    closed = [one for one in told if one["closed_at"] is not None]
    assert len(closed) >= 2
    assert all(one["status"] in ("promoted", "rejected", "abstained") for one in closed)
    again = execute(command)
    assert again.returncode == 1
    assert "is not empty" in complaint(again)


def test_it_is_one_or_the_other(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", {})
    archive = archive_of(tmp_path / "a.mbox", START)
    for arguments in ([], [str(archive), "--what-if", "window.count=3"]):
        done = run(home.root, "simulate", *arguments)
        assert done.returncode == 2
        assert "either an ARCHIVE or a --what-if" in complaint(done)
    missing = run(home.root, "simulate", "no-such.mbox", "--keep", str(tmp_path / "kept"))
    assert missing.returncode == 2
    assert "no-such.mbox" in complaint(missing)
    assert not (tmp_path / "kept").exists()
