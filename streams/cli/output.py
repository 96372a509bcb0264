"""How commands speak: tables for people, one JSON document for programs, progress where something takes time."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from streams.documents import plain

if TYPE_CHECKING:
    from streams.cli.layout import Fit

FIGURE = re.compile(r"[+-]?\d[\d,]*(\.\d+)?( ?%)?")
"""A number as a text, whatever was done to it: a sign, separators, per cent."""

Function = TypeVar("Function", bound=Callable[..., Any])


def json_option(function: Function) -> Function:
    """Adds ``--json``: one JSON document on stdout, everything else on stderr."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")(function)


def print_json(document: Any) -> None:
    click.echo(json.dumps(plain(document), ensure_ascii=False, indent=2, default=str))


def shown(value: Any) -> str:
    """A value as a cell of a table."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M")
    if isinstance(value, float):
        return f"{value:,.3f}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (list, tuple)):
        return " ".join(shown(item) for item in value)
    return str(value)


def per_cent(share: float, digits: int = 1) -> str:
    """A share of 1 as people read it, a space before the sign."""
    return f"{100 * share:.{digits}f} %"


def say(sentence: str, hang: str = "    ") -> None:
    """Prints a sentence; on a terminal it is broken between words, and each further line begins with ``hang``."""
    if sys.stdout.isatty():
        import textwrap

        sentence = textwrap.fill(sentence, _room(), subsequent_indent=hang, break_long_words=False, break_on_hyphens=False)
    click.echo(sentence)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> None:
    """A table as wide as it needs off a terminal, fitted to the terminal on one; figures stand right.

    On a terminal that is too narrow long texts are broken, never a number or a time. Where that is not enough, a table of
    figures is shown in blocks of columns, and any other row by row.
    """
    from streams.cli.layout import blocks, column, fitted

    held = [list(row) for row in rows]
    texts = [[shown(value) for value in row] for row in held]
    right = [_of_figures([row[index] for row in held]) for index in range(len(columns))]
    loose = [
        not right[index] and any(isinstance(row[index], (str, list, tuple)) for row in held)
        for index in range(len(columns))
    ]
    needs = [column(name, [row[index] for row in texts], text=loose[index]) for index, name in enumerate(columns)]
    room = _room()
    if title is not None:
        click.echo(title)
    groups: list[list[int]] | None = [list(range(len(columns)))]
    if fitted(needs, room) is None:
        groups = blocks(needs, room) if all(right[1:]) else None
    for group in groups or ():
        fit = fitted([needs[index] for index in group], room)
        if fit is not None:
            _print_grid(
                fit, [(columns[index], right[index]) for index in group], [[row[index] for index in group] for row in texts]
            )
    if groups is None:
        _print_records(columns, texts)


def _of_figures(values: Sequence[Any]) -> bool:
    """Whether a column holds numbers, as values or as texts."""
    if any(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return True
    said = [value for value in values if value not in (None, "")]
    return bool(said) and all(isinstance(value, str) and FIGURE.fullmatch(value) for value in said)


def _room() -> int:
    """Characters in a line of the terminal; off a terminal there is no end to them."""
    import shutil

    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 1_000_000


def _print_grid(fit: Fit, columns: Sequence[tuple[str, bool]], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from streams.cli.layout import EDGES, broken

    before, behind = {1: (0, 0), 2: (0, 1), 3: (1, 1)}[fit.gap]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, behind, 0, before), pad_edge=False)
    for (name, right), width in zip(columns, fit.widths, strict=True):
        table.add_column(Text(broken(name, width)), justify="right" if right else "left", overflow="fold", width=width)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console(width=sum(fit.widths) + fit.gap * (len(columns) - 1) + EDGES, highlight=False)
    with console.capture() as drawn:
        console.print(table)
    for line in drawn.get().splitlines():
        click.echo(line.rstrip())


def _print_records(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Row by row, a line for each column: for what no terminal of this width shows side by side."""
    from rich.cells import cell_len

    widest = max(cell_len(name) for name in columns)
    for row in rows:
        click.echo()
        for name, cell in zip(columns, row, strict=True):
            click.echo(f" {name}{' ' * (widest - cell_len(name))}   {cell}".rstrip())
    click.echo()


class Progress:
    """Reports how far something is, on stderr: a bar on a terminal; elsewhere a line now and then, every few seconds at
    first and every minute of what takes long. ``guess``: the bar guesses the time left, where no text tells it; a text that
    does needs the room of the bar on a terminal of fewer than ``WIDE`` columns."""

    WIDE = 120
    LINE_EVERY_S, LINE_EVERY_S_AT_MOST = 5.0, 60.0

    def __init__(self, label: str, *, quiet: bool = False, guess: bool = True) -> None:
        self.label = label
        self._guess = guess
        self._began_at = 0.0
        self._quiet = quiet
        self._bar: Any = None
        self._task: Any = None
        self._printed_at = 0.0
        self._printed = ""

    def update(self, done: float, total: float, text: str = "") -> None:
        """``done`` of ``total`` in any one unit; ``text`` says what just happened. Without a total that is a notice, which
        stays on a terminal and waits for no pause elsewhere."""
        if self._quiet:
            return
        if sys.stderr.isatty():
            self._draw(done, total, text)
        else:
            self._line(done, total, text)

    def _draw(self, done: float, total: float, text: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar
        from rich.table import Column

        if self._bar is None:
            console = Console(stderr=True)
            told_by_text = not self._guess and console.width < self.WIDE
            self._bar = Bar(
                TextColumn("{task.description}", table_column=Column(no_wrap=True, min_width=len(self.label))),
                *(() if told_by_text else (BarColumn(),)),
                TextColumn("{task.percentage:>3.0f} %", table_column=Column(no_wrap=True, min_width=5)),
                *(() if told_by_text else (TimeElapsedColumn(),)),
                *((TimeRemainingColumn(),) if self._guess else ()),
                TextColumn("{task.fields[text]}"),
                console=console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self.label, text="")
        if text and not total:
            if text != self._printed:
                self._printed = text
                self._bar.console.print(f"{self.label} {text}", markup=False, highlight=False, soft_wrap=True)
            return
        self._bar.update(self._task, completed=done, total=total or 1, text=text)

    def _line(self, done: float, total: float, text: str) -> None:
        import time

        now = time.monotonic()
        self._began_at = self._began_at or now
        pause = min(max(self.LINE_EVERY_S, (now - self._began_at) / 20), self.LINE_EVERY_S_AT_MOST)
        notice = bool(text and not total)
        if self._printed_at and now - self._printed_at < pause and not notice:
            return
        share = f" {100 * done / total:3.0f} %" if total else ""
        line = f"{self.label}{share} {text}".rstrip()
        if line != self._printed:
            self._printed_at, self._printed = now, line
            click.echo(line, err=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


@contextmanager
def progress(label: str, *, quiet: bool = False, guess: bool = True) -> Iterator[Progress]:
    """A :class:`Progress` that is taken off the screen at the end."""
    bar = Progress(label, quiet=quiet, guess=guess)
    try:
        yield bar
    finally:
        bar.close()
