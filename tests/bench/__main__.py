"""Runs the benchmarks and prints one table: ``python -m tests.bench [--only NAME ...] [--quick] [--write FILE]``.

``--idle-minutes 60 --only idle`` watches an idle daemon for an hour instead of a minute.

Every function named ``bench_...`` in the modules below is a benchmark. It returns rows, each with its reference measured in
the same run; one that fails is a row too.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from tests.bench import scaling
from tests.bench.kept import Measured, read, write
from tests.bench.machine import describe
from tests.bench.report import markdown, print_table
from tests.bench.rows import BenchRow
from tests.conftest import data_folder

MODULES = (
    "ingest",
    "imap",
    "live",
    "idle",
    "commands",
    "parsing",
    "parallel",
    "kafka",
    "training",
    "rivals",
    "memory",
    "growth",
    "replay",
    "gate",
    "search",
    "evaluation",
    "masking",
    "contamination",
    "serving",
    "crowd",
    "deploying",
)
PREFIX = "bench_"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A function of the folder of real mail (parameter ``data``, where it has one) that may have a ``quick`` form."""

    name: str
    measure: Callable[..., list[BenchRow]]

    def rows(self, data: Path | None, quick: bool, **options: object) -> list[BenchRow]:
        """What it measures, with those of the options that it knows; a failure is a row that says so, and a missing folder
        of mail one that says that."""
        wanted = inspect.signature(self.measure).parameters
        if "data" in wanted and data is None:
            return [_empty(self.name, None, "needs the folder of real mail: set MAILTIDE_DATA to one")]
        given = {name: value for name, value in {"data": data, "quick": quick, **options}.items() if name in wanted}
        try:
            return self.measure(**given)
        except Exception as error:
            traceback.print_exc()
            return [_empty(self.name, False, f"failed: {error}")]


def benchmarks() -> Iterator[Benchmark]:
    """All benchmarks, in the order of their modules and of their definition there; a module that cannot be imported is one
    that fails."""
    for module_name in MODULES:
        try:
            module = importlib.import_module(f"tests.bench.{module_name}")
        except ImportError as error:
            yield Benchmark(module_name, partial(_fail, error))
            continue
        for name, value in vars(module).items():
            if name.startswith(PREFIX) and inspect.isfunction(value) and value.__module__ == module.__name__:
                yield Benchmark(name.removeprefix(PREFIX).replace("_", "-"), value)


def _fail(error: ImportError) -> list[BenchRow]:
    raise error


def main(arguments: list[str]) -> int:
    """Exit code 1 when a goal is missed or a benchmark fails."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    known = {benchmark.name: benchmark for benchmark in benchmarks()}
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Runs the benchmarks and prints one table.")
    parser.add_argument("--only", action="append", choices=sorted(known), help="this one; may be repeated")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer: to see that they run, not to quote")
    parser.add_argument("--idle-minutes", type=float, default=1.0, metavar="N", help="how long an idle daemon is watched")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="put the rows into this Markdown page and keep its others"
    )
    options = parser.parse_args(arguments)
    if options.write and options.quick:
        parser.error("--write keeps what may be quoted: leave out --quick")
    data = data_folder()
    rows: list[BenchRow] = []
    for name in options.only or known:
        print(f"{name} ...", file=sys.stderr, flush=True)
        load = os.getloadavg()[0]
        found = known[name].rows(data, options.quick, idle_minutes=options.idle_minutes)
        rows += found
        if options.write:
            _keep(options.write, list(known), name, Measured(datetime.now(UTC).date().isoformat(), load, tuple(found)))
    print_table(rows)
    return 1 if any(row.met is False for row in rows) else 0


def _keep(page: Path, order: Sequence[str], name: str, measured: Measured) -> None:
    """Puts what one benchmark measured into the page, and into the file beside it that the page is made from."""
    machine, file = describe(), page.with_suffix(".json")
    kept = {**read(file, machine), name: measured}
    in_order = {each: kept[each] for each in order if each in kept}
    write(file, machine, in_order)
    page.write_text(markdown(in_order.values(), machine), encoding="utf-8")
    if page.resolve() == scaling.BENCHMARKS:
        scaling.rewrite(scaling.PAGE)


def _empty(name: str, met: bool | None, note: str) -> BenchRow:
    return BenchRow(name, math.nan, "", "", None, None, "", met, note)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
