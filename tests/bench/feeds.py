"""How fast an mbox is read and numbered, and in how much memory.

Run ``python -m tests.bench.feeds --mails 200000 --giant 10``: a generated archive of that many mails, plain and gzip, read
for the first time and once more from the journal; a file of that many GB that is one endless mail; and the real archives
where they are. Each reading runs in a process of its own, so that the memory told is that reading's peak. Rates are mails
per second of processor time, digest and journal included.
"""

from __future__ import annotations

import argparse
import gzip
import multiprocessing
import resource
import shutil
import tempfile
import time
from pathlib import Path

from pipeline.domain import Arrival
from pipeline.home import Home
from streams.feeds.mbox import MboxFeed
from tests.conftest import data_folder
from tests.support.archives import SEPARATOR, mail, mboxrd

BODY = "A line of text, about as long as people write them in mail.\n" * 50


def generate(folder: Path, mails: int) -> list[Path]:
    """An archive of mails of 3 KB, plain and packed."""
    plain, packed = folder / "generated.mbox", folder / "generated.mbox.gz"
    with plain.open("wb") as file:
        for number in range(mails):
            file.write(mboxrd([mail(number, BODY)]))
    with plain.open("rb") as source, gzip.open(packed, "wb", compresslevel=1) as target:
        shutil.copyfileobj(source, target)
    return [plain, packed]


def endless(folder: Path, gigabytes: int) -> Path:
    """A file with one separator and nothing after it that is mail: mostly a hole, so it takes no room."""
    path = folder / "endless.mbox"
    with path.open("wb") as file:
        file.write(SEPARATOR + b"\nSubject: endless\n\n")
        file.truncate(gigabytes << 30)
    return path


def read(root: Path, path: Path, label: str) -> None:
    wall, processor = time.perf_counter(), time.process_time()
    arrivals = other = size = 0
    for item in MboxFeed(Home(root), "bench", path).items(0):
        if isinstance(item, Arrival):
            arrivals += 1
            size += len(item.raw)
        else:
            other += 1
    processor, wall = time.process_time() - processor, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rates = f"{arrivals / processor:9,.0f}/s {size / processor / 1e6:6,.0f} MB/s"
    seconds = f"{processor:6.2f} s processor {wall:6.2f} s wall"
    print(f"{label:50} {arrivals:8,} mails {other:2} other {rates} {seconds} {peak:6,.0f} MB peak", flush=True)


def in_own_process(root: Path, path: Path, label: str) -> None:
    process = multiprocessing.get_context("spawn").Process(target=read, args=(root, path, label))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mails", type=int, default=200_000)
    parser.add_argument("--giant", type=int, default=10, metavar="GB")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = data_folder()
        real = sorted(data.glob("*.mbox.gz")) if data else []
        for path in [*generate(folder, options.mails), *real]:
            in_own_process(folder / "home", path, path.name)
            in_own_process(folder / "home", path, f"{path.name}, from the journal")
        in_own_process(folder / "home", endless(folder, options.giant), f"{options.giant} GB without a second separator")


if __name__ == "__main__":
    main()
