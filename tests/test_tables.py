"""Tables fit the terminal that they are printed on, and say everything on each."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.cli.layout import EDGES, Column, blocks, broken, fitted
from streams.cli.output import Progress, print_json, print_table, say

COLUMNS = st.lists(
    st.tuples(st.integers(1, 30), st.integers(0, 40)).map(lambda pair: Column(sum(pair), pair[0])), min_size=1
)


@given(COLUMNS, st.integers(1, 250))
def test_a_fit_fits_and_breaks_no_column_below_its_floor(columns: list[Column], room: int) -> None:
    fit = fitted(columns, room)
    if fit is None:
        assert sum(one.floor for one in columns) + (len(columns) - 1) + EDGES > room
    else:
        assert sum(fit.widths) + fit.gap * (len(columns) - 1) + EDGES <= room
        assert all(one.floor <= width <= one.natural for one, width in zip(columns, fit.widths, strict=True))


@given(COLUMNS, st.integers(1, 250))
def test_blocks_hold_every_column_once_behind_the_first(columns: list[Column], room: int) -> None:
    groups = blocks(columns, room)
    if groups is not None:
        assert [index for group in groups for index in group[1:]] == list(range(1, len(columns)))
        assert all(group[0] == 0 for group in groups)


def test_headers_break_where_words_end() -> None:
    assert broken("window_idx", 7) == "window_\nidx"
    assert broken("days each", 9) == "days each"
    assert broken("days each", 5) == "days\neach"


WHEN = datetime(2026, 3, 4, 9, 5)
WINDOWS = ("mailbox", "window_idx", "opened_at", "closed_at", "reason", "n_messages", "n_chunks")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes standard output a terminal of so many columns."""

    def of(columns: int) -> None:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    return of


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 200])
def test_numbers_and_times_stay_whole(columns: int, terminal: Any, capsys: pytest.CaptureFixture[str]) -> None:
    terminal(columns)
    print_table(WINDOWS, [("main", 1234, WHEN, WHEN, "bootstrap", 98765, 4321)])
    lines = click.unstyle(capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= columns
    for figure in ("1,234", "98,765", "4,321", "2026-03-04 09:05"):
        assert sum(figure in line for line in lines) >= 1, figure


@pytest.mark.parametrize("columns", [30, 80])
def test_a_sentence_is_broken_between_words_on_a_terminal_alone(
    columns: int, terminal: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = "- old windows: -0.1242 nats per token against a1b2c3d4e5f6 (95 % bounds -0.1578 and -0.0905): within 0.1"
    say(sentence)
    assert capsys.readouterr().out == f"{sentence}\n"
    terminal(columns)
    say(sentence)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 1 and max(map(len, lines)) <= columns and all(line.startswith("    ") for line in lines[1:])
    assert " ".join(line.strip() for line in lines) == sentence


def test_figures_of_a_wide_table_come_in_blocks(terminal: Any, capsys: pytest.CaptureFixture[str]) -> None:
    terminal(30)
    print_table(("window", *(f"figure {index}" for index in range(6))), [("ever", *range(100_000, 100_006))])
    out = capsys.readouterr().out
    assert out.count("window") == out.count("ever") > 1
    assert all(f"{figure:,}" in out for figure in range(100_000, 100_006))


def test_off_a_terminal_nothing_is_broken_and_signed_figures_stand_right(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("what", "change", "share"), [("x" * 500, "+1,200", "3%"), ("y", "-3", "12.5 %")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[3] == f" {'x' * 500}   +1,200       3%"
    assert lines[4] == f" y{' ' * 499}       -3   12.5 %"


def test_progress_off_a_terminal_says_nothing_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter(range(0, 100, 6))
    monkeypatch.setattr("time.monotonic", lambda: float(next(now)))
    progress = Progress("retrain main")
    for done, total, text in ((0, 0, ""), (0, 0, ""), (1, 4, "train"), (1, 4, "train"), (2, 4, "train")):
        progress.update(done, total, text)
    assert capsys.readouterr().err.splitlines() == ["retrain main", "retrain main  25 % train", "retrain main  50 % train"]


def test_json_holds_no_figure_that_is_not_finite(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"bounds": (float("-inf"), 0.5, float("nan")), "at": datetime(2026, 3, 1, 8)})
    assert json.loads(capsys.readouterr().out) == {"bounds": [None, 0.5, None], "at": "2026-03-01T08:00:00Z"}
