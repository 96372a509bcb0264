"""The rows of a run as one table: on the terminal, and as the page that is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date

from tests.bench.rows import BenchRow

COLUMNS = ("what", "measured", "compared with", "reference", "ratio", "goal", "met", "note")
NUMERIC = frozenset({"measured", "reference", "ratio"})
INTRODUCTION = (
    "Measured by one run of `{command}` on {day}. Each figure stands beside its reference from the same run on the same "
    "machine; compare ratios, as rates depend on the machine and on what else it does."
)


def print_table(rows: Sequence[BenchRow]) -> None:
    """Prints the rows, as wide as the terminal, or as they need where there is none."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=240)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in NUMERIC else "left", overflow="fold")
    for row in rows:
        table.add_row(*cells(row))
    console.print(table, markup=False)


def markdown(rows: Sequence[BenchRow], machine: Sequence[tuple[str, str]], command: str, day: date) -> str:
    """The page: when, how, on what, and the table."""
    lines = ["# Benchmarks", "", INTRODUCTION.format(command=command, day=day.isoformat()), ""]
    lines += ["| machine | |", "|---|---|", *(f"| {name} | {_escaped(value)} |" for name, value in machine), ""]
    lines.append(f"| {' | '.join(COLUMNS)} |")
    lines.append(f"|{'|'.join('---:' if column in NUMERIC else '---' for column in COLUMNS)}|")
    lines += [f"| {' | '.join(map(_escaped, cells(row)))} |" for row in rows]
    return "\n".join(lines) + "\n"


def cells(row: BenchRow) -> tuple[str, ...]:
    """A row as text, in the order of ``COLUMNS``."""
    met = {True: "yes", False: "NO", None: "-"}[row.met]
    unit = "" if row.reference_value is None else f" {row.unit}"
    return (
        row.name,
        f"{figure(row.value)} {row.unit}".strip(),
        row.reference,
        figure(row.reference_value) + unit,
        figure(row.ratio),
        row.goal,
        met,
        row.note,
    )


def figure(value: float | None) -> str:
    """Three digits that count, more only before the point; nothing for nothing."""
    if value is None or math.isnan(value):
        return ""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
