"""From mbox to durable, assigned rows: how fast, beside what others need for less, and whether it stays so.

Everything is pinned to one core. The product runs as people run it, as a process of its own, start included.
"""

from __future__ import annotations

import email
import gzip
import json
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from tests.bench.corpora import archive
from tests.bench.machine import one_core
from tests.bench.program import Took, mailtide, run
from tests.bench.rows import BenchRow
from tests.support.archives import mboxrd

ARCHIVES = ("linux-mips-1996-2001", "linux-mips-2006-2007")
REPEATS = 3
LARGE = 200_000
LARGE_QUICK = 30_000
TENTH = 10
PEAK_MB = 500.0
EVEN = 0.8
ID_HEADER = re.compile(rb"^(?:Message-ID|References|In-Reply-To):[^\n]*\n(?:[ \t][^\n]*\n)*", re.MULTILINE | re.IGNORECASE)


def bench_import_rate(data: Path, *, quick: bool = False) -> list[BenchRow]:
    """Rate of ``mailtide import`` against the standard library's parsing alone and against ``mu index``."""
    rows: list[BenchRow] = []
    with tempfile.TemporaryDirectory() as name, one_core():
        folder = Path(name)
        for title in ARCHIVES:
            mails = archive(data, title)
            box = folder / f"{title}.mbox"
            box.write_bytes(gzip.decompress((data / f"{title}.mbox.gz").read_bytes()))
            indexers: dict[str, Callable[[], float]] = {
                "mailtide": partial(_imported, folder, box),
                "email": partial(_parsed, mails),
            }
            if shutil.which("mu"):
                indexers["mu"] = partial(_indexed, folder, write_maildir(folder / f"{title}-maildir", mails))
            seconds = _in_turns(indexers, 1 if quick else REPEATS)
            rows += _rates(title, len(mails), seconds)
    return rows


def _rates(title: str, mails: int, seconds: dict[str, float]) -> list[BenchRow]:
    rate = {name: mails / taken for name, taken in seconds.items()}
    what = f"import of {mails:,} mails, {title}"
    against_email = rate["mailtide"] / rate["email"]
    rows = [
        BenchRow(
            what,
            rate["mailtide"],
            "mails/s",
            "email.message_from_bytes, parsing alone",
            rate["email"],
            against_email,
            "at least 0.5 of it",
            against_email >= 0.5,
            "wall time of the whole command, durable and assigned; medians",
        )
    ]
    if "mu" in rate:
        against_mu = rate["mailtide"] / rate["mu"]
        note = "mu builds a full-text index meanwhile, mailtide does not"
    else:
        against_mu, note = None, "mu is not installed (Debian: maildir-utils): not compared"
    met = None if against_mu is None else against_mu >= 3.0
    rows.append(
        BenchRow(
            what,
            rate["mailtide"],
            "mails/s",
            "mu init and mu index of a Maildir",
            rate.get("mu"),
            against_mu,
            "at least 3 times it",
            met,
            note,
        )
    )
    return rows


def _in_turns(indexers: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Median seconds of each, in alternation, so that a busy machine slows them alike."""
    seconds: dict[str, list[float]] = {name: [] for name in indexers}
    for _ in range(repeats):
        for name, measure in indexers.items():
            seconds[name].append(measure())
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def _imported(folder: Path, box: Path) -> float:
    home = Path(tempfile.mkdtemp(dir=folder)) / "home"
    run(mailtide(home, "init"))
    took = run(mailtide(home, "import", str(box), "--json"))
    shutil.rmtree(home)
    return took.seconds


def _parsed(mails: Sequence[bytes]) -> float:
    begin = time.perf_counter()
    for raw in mails:
        email.message_from_bytes(raw)
    return time.perf_counter() - begin


def _indexed(folder: Path, maildir: Path) -> float:
    muhome = Path(tempfile.mkdtemp(dir=folder))
    begin = time.perf_counter()
    run(["mu", "init", f"--muhome={muhome}", f"--maildir={maildir}"])
    run(["mu", "index", f"--muhome={muhome}", "--quiet"])
    seconds = time.perf_counter() - begin
    shutil.rmtree(muhome)
    return seconds


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
