"""The first sync of an IMAP folder: mails of a real archive, from a real Dovecot over TLS to durable, assigned rows.

The server keeps the machine's other cores; what reads it has one. ``python -m tests.bench.imap HOME MAILS [rows]`` is the
process that is measured: it takes the feed's settings as JSON from its input.
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from pipeline.arrival.people import PeopleKey
from pipeline.config.configuration import load
from pipeline.config.feed_settings import ImapFeedSettings
from pipeline.domain import Arrival, Clock
from pipeline.home import Home
from pipeline.store.rows import FeedRow
from pipeline.times import utc_now
from streams.feeds.imap import imap_feeds
from streams.homes import make_home
from streams.owning.ingest import batches
from streams.owning.owner import Owner
from streams.owning.stores import opener
from streams.parsers.pool import parsed
from tests.bench.corpora import archive
from tests.bench.ingest import renamed
from tests.bench.machine import one_core
from tests.bench.rows import BenchRow
from tests.conftest import REPOSITORY
from tests.support.dovecot import HOW, PROGRAM, dovecot

ARCHIVE = "linux-mips-2006-2007"
MAILS = 10_000
MAILS_QUICK = 2_000
WANTED = 1_000.0
EVEN = 1.15
MB = 1_000_000
LIMIT_S = 900.0


@dataclass(frozen=True, slots=True)
class Sync:
    """``mails`` taken in wall and processor seconds; resident memory in MB halfway, at the end, and at its peak."""

    mails: int
    seconds: float
    cpu_seconds: float
    halfway_mb: float
    end_mb: float
    peak_mb: float


def bench_imap_sync(data: Path, *, quick: bool = False) -> list[BenchRow]:
    """Rate and memory of a first sync, and what of it is the feed's part alone."""
    if PROGRAM is None:
        return [BenchRow("IMAP first sync", math.nan, "", "", None, None, "", None, f"needs Dovecot: {HOW}")]
    mails = _mails(archive(data, ARCHIVE), MAILS_QUICK if quick else MAILS)
    with tempfile.TemporaryDirectory() as name, dovecot({"bench": "secret"}) as server:
        server.deliver("bench", mails)
        with one_core():
            whole = _measured(Path(name) / "home", server.settings("bench"), len(mails), rows=True)
            alone = _measured(Path(name) / "alone", server.settings("bench"), len(mails), rows=False)
    if not whole.mails == alone.mails == len(mails):
        raise RuntimeError(f"{whole.mails:,} and {alone.mails:,} mails were read of {len(mails):,}")
    what = f"IMAP first sync of {len(mails):,} mails"
    rate, growth = whole.mails / whole.seconds, whole.end_mb / whole.halfway_mb
    return [
        BenchRow(
            f"{what} to durable rows",
            rate,
            "mails/s",
            "the feed alone: fetched, numbered, handed on",
            alone.mails / alone.seconds,
            rate * alone.seconds / alone.mails,
            f"at least {WANTED:,.0f}",
            rate >= WANTED,
            f"Dovecot over TLS on loopback; processor seconds per 1,000 mails: {_per_thousand(whole)}, "
            f"the feed alone {_per_thousand(alone)}",
        ),
        BenchRow(
            f"{what}: memory at the end",
            whole.end_mb,
            "MB",
            "halfway",
            whole.halfway_mb,
            growth,
            f"at most {EVEN:g} times it",
            growth <= EVEN,
            f"resident; peak {whole.peak_mb:,.0f} MB; the feed alone peaks at {alone.peak_mb:,.0f} MB",
        ),
    ]


def _mails(mails: list[bytes], wanted: int) -> list[bytes]:
    """So many mails, those of the archive over and over under new ids."""
    rounds = -(-wanted // len(mails))
    return [raw for number in range(rounds) for raw in renamed(mails, number)][:wanted]


def _per_thousand(sync: Sync) -> str:
    return f"{1000 * sync.cpu_seconds / sync.mails:.2f}"


def _measured(home: Path, settings: ImapFeedSettings, expected: int, *, rows: bool) -> Sync:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.imap", str(home), str(expected), *(["rows"] if rows else [])],
        input=settings.model_dump_json(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        cwd=REPOSITORY,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the sync ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    return Sync(**json.loads(done.stdout))


def sync(home: Home, imap: ImapFeedSettings, expected: int, *, rows: bool) -> Sync:
    """Reads a folder of ``expected`` mails to its end in this process: into a store, or to nowhere."""
    (feed,) = imap_feeds(home, "main", imap)
    me = psutil.Process()
    halfway: list[float] = []
    mails = 0

    def count(new: int) -> None:
        nonlocal mails
        mails += new
        if mails >= expected / 2 and not halfway:
            halfway.append(me.memory_info().rss / MB)

    begin, cpu = time.perf_counter(), time.process_time()
    if rows:
        settings = load(None, environment={}, overrides=["window.bootstrap=1000000"])
        make_home(home, settings, PeopleKey(b"k" * 32))
        with opener(home, settings)() as store:
            owner = Owner(store, home, settings, utc_now)
            owner.register("main", Clock.ARRIVAL, [FeedRow("main", feed.name, "imap", feed.source, utc_now())])
            for batch in batches(feed.items(after=0)):
                count(owner.take("main", [parsed(item) if isinstance(item, Arrival) else item for item in batch]).read)
    else:
        for item in feed.items(after=0):
            count(isinstance(item, Arrival))
    feed.close()
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB
    return Sync(mails, seconds, cpu, halfway[0], me.memory_info().rss / MB, peak)


if __name__ == "__main__":
    settings = ImapFeedSettings.model_validate_json(sys.stdin.read())
    print(json.dumps(asdict(sync(Home(Path(sys.argv[1])), settings, int(sys.argv[2]), rows=sys.argv[3:] == ["rows"]))))
