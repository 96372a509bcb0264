"""A feed's journal: numbers are contiguous, durable, and never given twice."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain import TickKind
from pipeline.errors import FeedError
from pipeline.home import Home
from streams.feeds.clock import ClockFeed
from streams.feeds.numbering import PAGE, Note, Noted, Numbering

AT = datetime(2026, 1, 2, 3, 4, 5, 678901)


def note(index: int) -> Note:
    return Note("mail", f"{index}+1", hashlib.sha256(str(index).encode()).hexdigest(), AT)


def test_a_full_disk_is_named_and_costs_no_number(home: Home) -> None:
    with Numbering(home, "main.x") as numbering:
        numbering.note([note(0)])
        numbering._db.execute("PRAGMA max_page_count = 8")  # what a full disk answers
        with pytest.raises(FeedError, match="cannot be used: database or disk is full"):
            numbering.note([note(index) for index in range(1, 1000)])
        numbering._db.execute("PRAGMA max_page_count = 1000000")
        assert [noted.number for noted in numbering.note([note(1)])] == [2]


def test_numbers_are_contiguous_from_one_and_read_back_as_noted(home: Home) -> None:
    notes = [note(index) for index in range(5)]
    with Numbering(home, "main.x") as numbering:
        assert [noted.number for noted in numbering.note(notes[:2])] == [1, 2]
        assert [noted.number for noted in numbering.note(notes[2:])] == [3, 4, 5]
    with Numbering(home, "main.x") as numbering:
        assert list(numbering.after(0)) == [Noted(index + 1, each) for index, each in enumerate(notes)]
        assert list(numbering.after(3)) == [Noted(4, notes[3]), Noted(5, notes[4])]
        assert numbering.last() == Noted(5, notes[4])


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(0, 7), max_size=8))
def test_any_batches_give_the_same_numbers(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    home = Home(tmp_path_factory.mktemp("home"))
    given_out: list[int] = []
    for size in sizes:
        with Numbering(home, "main.x") as numbering:
            given_out += [noted.number for noted in numbering.note([note(index) for index in range(size)])]
    assert given_out == list(range(1, sum(sizes) + 1))


def test_more_notes_than_a_page_come_in_order(home: Home) -> None:
    count = 2 * PAGE + 1
    with Numbering(home, "main.x") as numbering:
        numbering.note([note(index) for index in range(count)])
        assert [noted.number for noted in numbering.after(0)] == list(range(1, count + 1))


def test_state_is_kept_with_the_notes_or_not_at_all(home: Home) -> None:
    with Numbering(home, "main.x") as numbering:
        numbering.note([note(1)], state={"resume": "10", "head": "x"})
        numbering.note([note(2)], state={"resume": "20"})
        broken = Note("mail", "3+1", "not hexadecimal", AT)
        with pytest.raises(ValueError):
            numbering.note([note(3), broken], state={"resume": "30"})
    with Numbering(home, "main.x") as numbering:
        assert numbering.state() == {"resume": "20", "head": "x"}
        assert [noted.number for noted in numbering.after(0)] == [1, 2]
        assert [noted.number for noted in numbering.note([note(3)])] == [3]


def test_the_newest_mail_is_found_behind_ticks(home: Home) -> None:
    with Numbering(home, "main.x") as numbering:
        assert numbering.last() is None and numbering.last_mail() is None
        numbering.note([note(1), Note("caught_up", "2", "", AT)])
        assert numbering.last_mail() == Noted(1, note(1))
        assert numbering.last() == Noted(2, Note("caught_up", "2", "", AT))


def test_known_cursors_are_told_from_others(home: Home) -> None:
    count = 2 * PAGE + 1
    with Numbering(home, "main.x") as numbering:
        numbering.note([note(1)])
        numbering.index_cursors()
        numbering.note([note(index) for index in range(2, count)])
    with Numbering(home, "main.x") as numbering:
        numbering.index_cursors()
        asked = [note(index).cursor for index in range(1, count, 2)]
        assert numbering.known([*asked, "other", ""]) == set(asked)
        assert numbering.known([]) == set()


def test_a_lost_journal_goes_on_after_the_numbers_that_were_taken(home: Home) -> None:
    with Numbering(home, "main.x") as numbering:
        assert [noted.number for noted in numbering.note([note(1), note(2)], floor=120)] == [121, 122]
        assert [noted.number for noted in numbering.note([note(3)], floor=121)] == [123]


def test_the_journal_is_private(home: Home) -> None:
    with Numbering(home, "main.x") as numbering:
        numbering.note([note(1)])
        modes = {file.name: file.stat().st_mode & 0o777 for file in home.feeds.iterdir()}
    assert "main.x.sqlite" in modes
    assert set(modes.values()) == {0o600}
    assert home.feeds.stat().st_mode & 0o777 == 0o700


def test_notes_cannot_be_changed(home: Home) -> None:
    with Numbering(home, "main.x") as numbering:
        numbering.note([note(1)])
    tool = "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]); d.execute(sys.argv[2]); d.commit()"
    for statement in ("UPDATE notes SET number = 2", "DELETE FROM notes"):
        done = subprocess.run(
            [sys.executable, "-c", tool, str(home.feeds / "main.x.sqlite"), statement], capture_output=True, text=True
        )
        assert "append-only" in done.stderr


def test_a_feed_has_one_reader(home: Home) -> None:
    with Numbering(home, "main.x"), pytest.raises(FeedError, match=r"another process is reading feed main\.x"):
        Numbering(home, "main.x")
    Numbering(home, "main.x").close()


def test_a_damaged_journal_is_named_with_the_next_step(home: Home) -> None:
    home.feeds.mkdir(parents=True)
    (home.feeds / "main.x.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(FeedError, match=r"main\.x\.sqlite is damaged.*; put it back from a backup"):
        Numbering(home, "main.x")


def test_what_was_noted_survives_kill_9(home: Home) -> None:
    program = """
import os, signal, sys
from pathlib import Path
from pipeline.home import Home
from streams.feeds.numbering import Numbering
from tests.test_numbering import note
numbering = Numbering(Home(Path(sys.argv[1])), "main.x")
for index in range(20):
    print(numbering.note([note(index)])[0].number, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(home.root)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    with Numbering(home, "main.x") as numbering:
        assert [str(noted.number) for noted in numbering.after(0)] == done.stdout.split()
        assert [noted.number for noted in numbering.note([note(20)])] == [21]


def test_clock_ticks_are_numbered_and_handed_on_until_taken(home: Home) -> None:
    clock = ClockFeed(home, "main")
    age = clock.note(TickKind.AGE, AT)
    manual = clock.note(TickKind.MANUAL, AT)
    assert (age.number, manual.number, age.feed, age.mailbox) == (1, 2, "main.clock", "main")
    assert ClockFeed(home, "main").pending(0) == [age, manual]
    assert ClockFeed(home, "main").pending(1) == [manual]
    assert ClockFeed(home, "main").pending(2) == []
    assert clock.note(TickKind.CRON, AT, floor=7).number == 8
