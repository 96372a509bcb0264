"""From mbox to durable, assigned rows: how fast, beside what others need for less, and whether it stays so.

Everything is pinned to one core. The product runs as people run it, as a process of its own, start included.
"""

from __future__ import annotations

import email
import gzip
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from tests.bench.corpora import archive
from tests.bench.machine import one_core
from tests.bench.program import Took, mailtide, run
from tests.bench.rows import BenchRow
from tests.support.archives import mboxrd

ARCHIVES = ("linux-mips-1996-2001", "linux-mips-2006-2007")
REPEATS = 3
HALF, THRICE = 0.5, 3.0
LARGE = 200_000
LARGE_QUICK = 30_000
TENTH = 10
PEAK_MB = 500.0
EVEN = 0.8
ID_HEADER = re.compile(rb"^(?:Message-ID|References|In-Reply-To):[^\n]*\n(?:[ \t][^\n]*\n)*", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Cost:
    """Wall and processor seconds."""

    seconds: float
    cpu_seconds: float


def bench_import_rate(data: Path, *, quick: bool = False) -> list[BenchRow]:
    """Rate of ``mailtide import`` against the standard library's parsing alone and against ``mu index``."""
    rows: list[BenchRow] = []
    with tempfile.TemporaryDirectory() as name, one_core():
        folder = Path(name)
        for title in ARCHIVES:
            mails = archive(data, title)
            box = folder / f"{title}.mbox"
            box.write_bytes(gzip.decompress((data / f"{title}.mbox.gz").read_bytes()))
            measures: dict[str, Callable[[], Cost]] = {
                "mailtide": partial(_imported, folder, box),
                "email": partial(_parsed, mails),
            }
            if shutil.which("mu"):
                measures["mu"] = partial(_indexed, folder, write_maildir(folder / f"{title}-maildir", mails))
            rows += _rates(title, len(mails), _in_turns(measures, 1 if quick else REPEATS))
    return rows


def _rates(title: str, mails: int, costs: dict[str, Cost]) -> list[BenchRow]:
    ours = costs["mailtide"]
    rows = [
        _against(title, mails, ours, costs["email"], "email.message_from_bytes, parsing alone", HALF, "at least 0.5 of it")
    ]
    reference, goal = "mu init and mu index of a Maildir", "at least 3 times it"
    if "mu" in costs:
        rows.append(_against(title, mails, ours, costs["mu"], reference, THRICE, goal))
    else:
        note = "mu is not installed (Debian: maildir-utils): not compared"
        rows.append(BenchRow(_what(title, mails), mails / ours.seconds, "mails/s", reference, None, None, goal, None, note))
    return rows


def _against(title: str, mails: int, ours: Cost, theirs: Cost, reference: str, wanted: float, goal: str) -> BenchRow:
    ratio = theirs.seconds / ours.seconds
    note = (
        "wall time of the whole command, window 0 left open; medians in alternation; by processor time "
        f"{mails / ours.cpu_seconds:,.0f} mails/s and {theirs.cpu_seconds / ours.cpu_seconds:.2f}"
    )
    rates = (mails / ours.seconds, mails / theirs.seconds)
    return BenchRow(_what(title, mails), rates[0], "mails/s", reference, rates[1], ratio, goal, ratio >= wanted, note)


def _what(title: str, mails: int) -> str:
    return f"import of {mails:,} mails, {title}"


def _in_turns(measures: dict[str, Callable[[], Cost]], repeats: int) -> dict[str, Cost]:
    """The medians of each, in alternation, so that a busy machine slows them alike."""
    costs: dict[str, list[Cost]] = {name: [] for name in measures}
    for _ in range(repeats):
        for name, measure in measures.items():
            costs[name].append(measure())
    return {
        name: Cost(median(cost.seconds for cost in taken), median(cost.cpu_seconds for cost in taken))
        for name, taken in costs.items()
    }


def _imported(folder: Path, box: Path) -> Cost:
    """An import into a fresh home whose first window stays open: rows are durable and assigned, nothing is chunked."""
    home = Path(tempfile.mkdtemp(dir=folder)) / "home"
    run(mailtide(home, "init", "--set", "window.bootstrap=1000000"))
    took = run(mailtide(home, "import", str(box), "--json"))
    shutil.rmtree(home)
    return Cost(took.seconds, took.cpu_seconds)


def _parsed(mails: Sequence[bytes]) -> Cost:
    begin, cpu = time.perf_counter(), time.process_time()
    for raw in mails:
        email.message_from_bytes(raw)
    return Cost(time.perf_counter() - begin, time.process_time() - cpu)


def _indexed(folder: Path, maildir: Path) -> Cost:
    muhome = Path(tempfile.mkdtemp(dir=folder))
    made = run(["mu", "init", f"--muhome={muhome}", f"--maildir={maildir}"])
    indexed = run(["mu", "index", f"--muhome={muhome}", "--quiet"])
    shutil.rmtree(muhome)
    return Cost(made.seconds + indexed.seconds, made.cpu_seconds + indexed.cpu_seconds)


def write_maildir(folder: Path, mails: Sequence[bytes]) -> Path:
    """A Maildir with each mail as a file in ``cur``."""
    for part in ("cur", "new", "tmp"):
        (folder / part).mkdir(parents=True)
    for number, raw in enumerate(mails):
        (folder / "cur" / f"{number:09}.bench:2,S").write_bytes(raw)
    return folder


def bench_large_import(data: Path, *, quick: bool = False) -> list[BenchRow]:
    """One import of the real mails over and over, under new ids: evenness of the rate, and peak memory."""
    wanted = LARGE_QUICK if quick else LARGE
    with tempfile.TemporaryDirectory() as name, one_core():
        folder = Path(name)
        box = folder / "large.mbox"
        written = write_repeated(box, [raw for title in ARCHIVES for raw in archive(data, title)], wanted)
        home = folder / "home"
        run(mailtide(home, "init"))
        took = run(mailtide(home, "import", str(box), "--json"))
    return _large_rows(written, took)


def _large_rows(written: int, took: Took) -> list[BenchRow]:
    summary = json.loads(took.output)
    batches = [(int(batch["mails"]), float(batch["seconds"])) for batch in summary["batches"] if batch["mails"]]
    # The last batch of an import closes a window: a cost per closing, not per mail. It counts in the total.
    start, end = rate_of(batches[:-1], first=True), rate_of(batches[:-1], first=False)
    total = f"{written:,} mails in {took.seconds:.0f} s, {written / took.seconds:,.0f} a second, closing included"
    if summary["read"] != written:
        raise RuntimeError(f"{summary['read']:,} mails were read of {written:,}")
    what = f"import of {written:,} mails"
    return [
        BenchRow(
            f"{what}: rate at the end",
            end,
            "mails/s",
            "the same, at the start",
            start,
            end / start,
            f"at least {EVEN:g} of it",
            end / start >= EVEN,
            f"first and last tenth; {total}",
        ),
        BenchRow(
            f"{what}: peak memory",
            took.peak_mb,
            "MB",
            "",
            None,
            None,
            f"under {PEAK_MB:g} MB",
            0 < took.peak_mb < PEAK_MB,
            "resident, by the kernel's high-water mark",
        ),
    ]


def rate_of(batches: Sequence[tuple[int, float]], *, first: bool) -> float:
    """Mails a second over the first or last tenth of the mails of ``batches`` (mails, seconds)."""
    wanted = sum(mails for mails, _ in batches) / TENTH
    mails, seconds = 0, 0.0
    for count, taken in batches if first else reversed(batches):
        mails, seconds = mails + count, seconds + taken
        if mails >= wanted:
            break
    return mails / seconds


def write_repeated(box: Path, mails: Sequence[bytes], wanted: int) -> int:
    """Writes at least ``wanted`` mails to an mbox, in whole rounds whose ids are their own; returns how many."""
    rounds = -(-wanted // len(mails))
    with box.open("wb") as file:
        for number in range(rounds):
            file.writelines(mboxrd([raw]) for raw in renamed(mails, number))
    return rounds * len(mails)


def renamed(mails: Sequence[bytes], number: int) -> Iterator[bytes]:
    """The mails with every id in their id headers marked by a round's number."""
    mark = b"<r%d." % number
    for raw in mails:
        head, gap, body = raw.partition(b"\n\n")
        yield ID_HEADER.sub(lambda found: found[0].replace(b"<", mark), head + b"\n") + gap[1:] + body
