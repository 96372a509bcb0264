"""The rows of a run as one table: on the terminal, and as the page that is kept."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from tests.bench.kept import Measured
from tests.bench.rows import BenchRow

COLUMNS = ("what", "measured", "compared with", "reference", "ratio", "goal", "met", "note")
NUMERIC = frozenset({"measured", "reference", "ratio"})
INTRODUCTION = (
    "Kept by `make bench`, and row by row by `python -m tests.bench --only NAME --write docs/benchmarks.md`. Each figure "
    "stands beside its reference from the same run, and says when it was measured, at which load of the machine: processes "
    "that wanted a core in the minute before. Compare ratios, as rates depend on the machine and what else it does."
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


def markdown(measured: Iterable[Measured], machine: Sequence[tuple[str, str]]) -> str:
    """The page: how, on what, and the table."""
    lines = ["# Benchmarks", "", INTRODUCTION, ""]
    lines += ["| machine | |", "|---|---|", *(f"| {name} | {_escaped(value)} |" for name, value in machine), ""]
    columns = (*COLUMNS, "measured on")
    lines.append(f"| {' | '.join(columns)} |")
    lines.append(f"|{'|'.join('---:' if column in NUMERIC else '---' for column in columns)}|")
    lines += [f"| {' | '.join(map(_escaped, (*cells(row), one.when)))} |" for one in measured for row in one.rows]
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
