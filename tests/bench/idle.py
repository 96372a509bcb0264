"""What the daemon costs while no mail comes: processor time, and memory from beginning to end."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.bench.rows import BenchRow
from tests.support.daemons import TINY, daemon, make_home, rows, until
from tests.support.dovecot import HOW, PROGRAM, Dovecot, dovecot
from tests.support.kafka import running
from tests.support.live import FINAL, USER, invented_mail, live_settings
from tests.support.program import run

MAILS = 250
SETTLE_SECONDS = 30.0
"""After the last mail: connections, caches and allocators have come to rest."""
BUSY_SHARE = 0.01
EVEN = 1.02
MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Rest:
    """Processor seconds used within wall seconds, and resident memory in MB before and after."""

    seconds: float
    cpu_seconds: float
    begin_mb: float
    end_mb: float

    @property
    def share(self) -> float:
        return self.cpu_seconds / self.seconds


def bench_idle(*, quick: bool = False, idle_minutes: float = 1.0) -> list[BenchRow]:
    """The daemon in one process, without a broker and with one. It has stored mail and trained on it, keeps its training
    process warm, and waits for more by IDLE."""
    if PROGRAM is None:
        return [BenchRow("idle daemon", math.nan, "", "", None, None, "", None, f"needs Dovecot: {HOW}")]
    minutes = min(idle_minutes, 0.25) if quick else idle_minutes
    with tempfile.TemporaryDirectory() as name, dovecot({USER: "secret"}) as server:
        folder = Path(name)
        embedded = _rest(folder / "embedded", server, minutes, bus="embedded")
        with running(folder / "broker") as broker:
            bus = {"kind": "kafka", "brokers": broker.address, "partitions": 2}
            kafka = _rest(folder / "kafka", server, minutes, bus=bus)
    return [*_rows("embedded", embedded), *_rows("all roles in one process on Kafka", kafka)]


def _rows(what: str, rest: Rest) -> list[BenchRow]:
    lasted = f"over {rest.seconds / 60:.3g} minutes, its training process included; it has trained and waits by IDLE"
    growth = rest.end_mb / rest.begin_mb
    return [
        BenchRow(
            f"idle daemon, {what}: processor",
            100 * rest.share,
            "% of a core",
            "",
            None,
            None,
            f"under {BUSY_SHARE:.0%}",
            rest.share < BUSY_SHARE,
            f"{rest.cpu_seconds:.2f} CPU-seconds {lasted}",
        ),
        BenchRow(
            f"idle daemon, {what}: memory at the end",
            rest.end_mb,
            "MB",
            "at the beginning",
            rest.begin_mb,
            growth,
            f"at most {EVEN:g} times it",
            growth <= EVEN,
            f"resident, {lasted}",
        ),
    ]


def _rest(folder: Path, server: Dovecot, minutes: float, **settings: Any) -> Rest:
    folder.mkdir()
    mailbox, mails = invented_mail(folder, MAILS)
    server.deliver(USER, mails)
    window = {"bootstrap": MAILS // 2, "count": None, "age": 7.0}
    asked = live_settings(server, mailbox, window=window, model=TINY, auto_retrain=True, **settings)
    home = make_home(folder / "home", asked)
    if settings["bus"] != "embedded":
        made = run(home.root, "topics", "create")
        if made.returncode:
            raise RuntimeError(made.stderr)
    with daemon(home) as process:
        until(lambda: [row["status"] for row in rows(home, "SELECT status FROM runs") if row["status"] in FINAL], 300)
        return _watched(psutil.Process(process.pid), minutes * 60)


def _watched(process: psutil.Process, seconds: float) -> Rest:
    time.sleep(SETTLE_SECONDS)
    family = [process, *process.children(recursive=True)]
    began, cpu, begin_mb = time.monotonic(), _cpu(family), _memory(family)
    time.sleep(seconds)
    return Rest(time.monotonic() - began, _cpu(family) - cpu, begin_mb, _memory(family))


def _cpu(family: Sequence[psutil.Process]) -> float:
    return sum(times.user + times.system for times in (each.cpu_times() for each in family))


def _memory(family: Sequence[psutil.Process]) -> float:
    return sum(each.memory_info().rss for each in family) / MB
