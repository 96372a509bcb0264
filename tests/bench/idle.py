"""What the daemon costs while no mail comes: processor time, and memory from beginning to end."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.bench.rows import BenchRow
from tests.support.daemons import TINY, daemon, make_home, rows, until
from tests.support.dovecot import HOW, PROGRAM, dovecot
from tests.support.kafka import running
from tests.support.live import FINAL, USER, invented_mail, live, live_settings

MAILS = 250
WINDOW = {"bootstrap": MAILS // 2, "count": None, "age": 7.0}
SETTLE_SECONDS = 30.0
"""After the verdict: connections, caches and allocators have come to rest."""
PATIENCE_SECONDS = 900.0
BUSY_SHARE = 0.01
EVEN = 1.02
MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Rest:
    """A process and those that it has started: processor seconds used within wall seconds, and resident memory in MB
    before and after."""

    seconds: float
    cpu_seconds: float
    begin_mb: float
    end_mb: float

    @property
    def share(self) -> float:
        return self.cpu_seconds / self.seconds


def bench_idle(*, quick: bool = False, idle_minutes: float = 1.0) -> list[BenchRow]:
    """The daemon without a broker, and each of its roles with one. It has stored mail and trained on it, keeps its training
    process warm, and waits for more by IDLE."""
    if PROGRAM is None:
        return [BenchRow("idle daemon", math.nan, "", "", None, None, "", None, f"needs Dovecot: {HOW}")]
    seconds = 60 * (min(idle_minutes, 0.25) if quick else idle_minutes)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "kafka").mkdir()
        return [*_alone(folder, seconds), *_by_role(folder / "kafka", seconds)]


def _alone(folder: Path, seconds: float) -> list[BenchRow]:
    mailbox, mails = invented_mail(folder, MAILS)
    with dovecot({USER: "secret"}) as server:
        server.deliver(USER, mails)
        settings = live_settings(server, mailbox, window=WINDOW, model=TINY, auto_retrain=True)
        home = make_home(folder / "home", settings)
        with daemon(home) as process:
            until(lambda: FINAL & {row["status"] for row in rows(home, "SELECT status FROM runs")}, PATIENCE_SECONDS)
            rest = _watched({"daemon": process.pid}, seconds)["daemon"]
    return [_processor("idle daemon", rest, ""), _memory("idle daemon", [rest])]


def _by_role(folder: Path, seconds: float) -> list[BenchRow]:
    mailbox, mails = invented_mail(folder, MAILS)
    with running(folder / "broker") as broker, live(folder, broker, mailbox, window=WINDOW, model=TINY) as room:
        room.send(mails)
        room.until(room.settled, PATIENCE_SECONDS)
        rests = _watched({name: process.pid for name, process in room.processes.items()}, seconds)
    busiest = max(rests, key=lambda name: rests[name].share)
    others = ", ".join(f"{name} {rest.share:.1%}" for name, rest in rests.items() if name != busiest)
    what = "idle daemon on Kafka, six processes"
    return [
        _processor(f"{what}, the busiest ({busiest})", rests[busiest], f"; the others: {others}"),
        _memory(f"{what} together", list(rests.values())),
    ]


def _processor(what: str, rest: Rest, others: str) -> BenchRow:
    return BenchRow(
        f"{what}: processor",
        100 * rest.share,
        "% of a core",
        "",
        None,
        None,
        f"under {BUSY_SHARE:.0%}",
        rest.share < BUSY_SHARE,
        f"{rest.cpu_seconds:.2f} CPU-seconds {_lasted(rest)}{others}",
    )


def _memory(what: str, rests: Sequence[Rest]) -> BenchRow:
    begin, end = (sum(sizes) for sizes in zip(*((rest.begin_mb, rest.end_mb) for rest in rests), strict=True))
    return BenchRow(
        f"{what}: memory at the end",
        end,
        "MB",
        "at the beginning",
        begin,
        end / begin,
        f"at most {EVEN:g} times it",
        end <= EVEN * begin,
        f"resident, the warm training process included, {_lasted(rests[0])}",
    )


def _lasted(rest: Rest) -> str:
    return f"over {rest.seconds / 60:.3g} minutes after a verdict, waiting by IDLE"


def _watched(pids: Mapping[str, int], seconds: float) -> dict[str, Rest]:
    time.sleep(SETTLE_SECONDS)
    families = {name: _family(pid) for name, pid in pids.items()}
    began = time.monotonic()
    before = {name: (_cpu(family), _resident(family)) for name, family in families.items()}
    time.sleep(seconds)
    lasted = time.monotonic() - began
    return {
        name: Rest(lasted, _cpu(family) - before[name][0], before[name][1], _resident(family))
        for name, family in families.items()
    }


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _cpu(family: Sequence[psutil.Process]) -> float:
    return sum(times.user + times.system for times in (each.cpu_times() for each in family))


def _resident(family: Sequence[psutil.Process]) -> float:
    return sum(each.memory_info().rss for each in family) / MB
