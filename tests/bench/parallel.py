"""What parser processes gain an import, and what they cost. Unlike the other measurements of imports it uses every core."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.ingest import ARCHIVES
from tests.bench.program import mailtide, run
from tests.bench.rows import BenchRow

PROCESSES = (0, 1, 2)
REPEATS = 3
GOAL = 1.6
MEASURED = """
import json, resource, sys
from pathlib import Path
from streams.cli import main
try:
    main(sys.argv[2:])
finally:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    Path(sys.argv[1]).write_text(json.dumps([one.ru_utime + one.ru_stime for one in used]))
"""
"""Runs the program, and writes the processor seconds of its own process and of its parsers."""


@dataclass(frozen=True, slots=True)
class Import:
    """Wall seconds of the whole command; processor seconds of the main process and of its parsers together."""

    mails: int
    seconds: float
    main: float
    parsers: float


def bench_parsers(data: Path, *, quick: bool = False) -> list[BenchRow]:
    """``mailtide import`` with two parser processes against one, and against none."""
    taken: dict[int, list[Import]] = {processes: [] for processes in PROCESSES}
    with tempfile.TemporaryDirectory() as name:
        box = Path(name) / "archive.mbox"
        box.write_bytes(b"".join(gzip.decompress((data / f"{title}.mbox.gz").read_bytes()) for title in ARCHIVES))
        for _ in range(1 if quick else REPEATS):
            for processes in PROCESSES:
                taken[processes].append(_imported(Path(name), box, processes))
    return list(_rows({processes: _median(imports) for processes, imports in taken.items()}))


def _imported(folder: Path, box: Path, processes: int) -> Import:
    home, used = folder / "home", folder / "used.json"
    run(mailtide(home, "init", "--set", "window.bootstrap=1000000", "--set", f"parse.processes={processes}"))
    took = run([sys.executable, "-c", MEASURED, str(used), "--home", str(home), "import", str(box), "--json"])
    main, parsers = json.loads(used.read_text(encoding="utf-8"))
    shutil.rmtree(home)
    return Import(json.loads(took.output)["read"], took.seconds, main, parsers)


def _median(imports: list[Import]) -> Import:
    return sorted(imports, key=lambda one: one.seconds)[len(imports) // 2]


def _rows(taken: dict[int, Import]) -> Iterator[BenchRow]:
    two = taken[2]
    for other, goal in ((1, f"{GOAL:g} times it"), (0, "")):
        reference = taken[other]
        ratio = reference.seconds / two.seconds
        yield BenchRow(
            f"import of {two.mails:,} mails, two parser processes",
            two.mails / two.seconds,
            "mails/s",
            "one parser process" if other else "parsing in the main process",
            reference.mails / reference.seconds,
            ratio,
            goal,
            ratio >= GOAL if goal else None,
            f"wall time on {os.cpu_count()} cores, start included; processor seconds of the main process {two.main:.2f} "
            f"against {reference.main:.2f}, of the parsers {two.parsers:.2f} against {reference.parsers:.2f}: "
            f"the main process alone bounds the gain at {reference.main / two.main:.2f}",
        )
