"""From raw mail to durable rows over a real broker, beside an import in one process: processor time, the broker's apart."""

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
import signal
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from pipeline.home import Home
from streams.bus.topics import create_topics
from tests.bench.corpora import archive
from tests.bench.program import mailtide, run
from tests.bench.rows import BenchRow
from tests.support.kafka import Broker, running
from tests.support.roles import role, settings_of

ARCHIVES = ("linux-mips-1996-2001", "linux-mips-2006-2007")
REPEATS = 3
GOAL = 0.7
OPEN = "window.bootstrap=1000000"
"""The first window stays open: rows are durable and assigned, nothing is chunked."""


@dataclass(frozen=True, slots=True)
class Boxes:
    """The same mail as an archive, and one mail of it: what that costs is what starting costs."""

    whole: Path
    single: Path
    mails: int


def bench_kafka_path(data: Path, *, quick: bool = False) -> list[BenchRow]:
    """One feed, one assigner, and one or two parse workers, each a process."""
    with tempfile.TemporaryDirectory() as name, running(Path(name) / "broker") as broker:
        folder = Path(name)
        boxes = _boxes(folder, data)
        found: dict[int, list[float]] = {0: [], 1: [], 2: []}
        for _ in range(1 if quick else REPEATS):
            for parsers, measured in found.items():
                whole = _cost(folder, broker, boxes.whole, parsers)
                measured.append(boxes.mails / (whole - _cost(folder, broker, boxes.single, parsers)))
    rates = {parsers: median(measured) for parsers, measured in found.items()}
    return [_row(boxes.mails, 1, rates[1], rates[0], GOAL), _row(boxes.mails, 2, rates[2], rates[0], rates[1] / rates[0])]


def _row(mails: int, parsers: int, rate: float, embedded: float, wanted: float) -> BenchRow:
    workers = "one parse worker" if parsers == 1 else f"{parsers} parse workers"
    return BenchRow(
        name=f"Kafka path, {mails:,} mails, {workers}, one assigner",
        value=rate,
        unit="mails/CPU-s",
        reference="mailtide import of the same archive",
        reference_value=embedded,
        ratio=rate / embedded,
        goal=f"at least {wanted:.2f} of it" if parsers == 1 else "not less than with one",
        met=rate / embedded >= wanted,
        note="processor time of all but the broker, less what the same takes for one mail; medians in alternation",
    )


def _boxes(folder: Path, data: Path) -> Boxes:
    whole, single = folder / "whole.mbox", folder / "single.mbox"
    with whole.open("wb") as file:
        for title in ARCHIVES:
            file.write(gzip.decompress((data / f"{title}.mbox.gz").read_bytes()))
    first, separator, _ = whole.read_bytes().partition(b"\n\nFrom ")
    single.write_bytes(first + separator[:2])
    return Boxes(whole, single, sum(len(archive(data, title)) for title in ARCHIVES))


def _cost(folder: Path, broker: Broker, box: Path, parsers: int) -> float:
    """Processor seconds; no parsers stand for an import in one process."""
    root = Path(tempfile.mkdtemp(dir=folder))
    home = root / "home"
    prefix = f"b{uuid.uuid4().hex[:8]}."
    bus = ("bus.kind=kafka", f"bus.brokers={broker.address}", f"bus.prefix={prefix}") if parsers else ()
    run(mailtide(home, "init", *(part for setting in (OPEN, *bus) for part in ("--set", setting))))
    try:
        if not parsers:
            return run(mailtide(home, "import", str(box), "--mailbox", "main")).cpu_seconds
        asyncio.run(create_topics(settings_of(Home(home)).bus))
        staying = [role("parse", home) for _ in range(parsers)] + [role("assign", home)]
        feed = role("feed", home, str(box), "main")
        cost = _ended(feed.pid)
        for process in staying:
            process.send_signal(signal.SIGTERM)
        return cost + sum(_ended(process.pid) for process in staying)
    finally:
        shutil.rmtree(root)


def _ended(pid: int) -> float:
    """Waits for a process that ends well; its processor seconds."""
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise RuntimeError(f"process {pid} ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_utime + usage.ru_stime
