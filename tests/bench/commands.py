"""How long one waits for a command that only tells something."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from streams.demo.mailbox import write_mailbox
from tests.bench.program import mailtide, run
from tests.bench.rows import BenchRow

REPEATS = 7
HELP_S = 0.3
STATUS_S = 0.6


def bench_commands(data: Path, *, quick: bool = False) -> list[BenchRow]:
    """``--help`` and ``status`` of a home that holds the demo's mailbox, beside a Python that does nothing."""
    repeats = 3 if quick else REPEATS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        demo = write_mailbox(folder / "demo.mbox", seed=0)
        home = folder / "home"
        run(mailtide(home, "init"))
        run(mailtide(home, "import", str(demo.path), "--clock", "header"))
        bare = _median([sys.executable, "-c", "pass"], repeats)
        told = _median(mailtide(home, "--help"), repeats)
        stood = _median(mailtide(home, "status"), repeats)
    held = f"a home with {demo.messages:,} mails"
    return [
        _row("mailtide --help", told, bare, HELP_S, f"median of {repeats}"),
        _row("mailtide status", stood, bare, STATUS_S, f"median of {repeats}, {held}"),
    ]


def _row(name: str, seconds: float, bare: float, limit: float, note: str) -> BenchRow:
    return BenchRow(name, seconds, "s", "python -c pass", bare, seconds / bare, f"under {limit:g} s", seconds < limit, note)


def _median(command: Sequence[str], repeats: int) -> float:
    return statistics.median(run(command).seconds for _ in range(repeats))
