"""How long live mail takes: from mail server to store, and from a window's last mail to the first training step."""

from __future__ import annotations

import email
import json
import math
import random
import re
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType

import psutil
from imapclient import IMAPClient

from tests.bench.corpora import archive
from tests.bench.rows import BenchRow
from tests.support.daemons import daemon, make_home, until
from tests.support.dovecot import HOW, PROGRAM, Dovecot, dovecot
from tests.support.kafka import running
from tests.support.live import USER, Live, invented_mail, live, live_settings

ARCHIVE = "linux-mips-2006-2007"
DELIVERIES, DELIVERIES_QUICK = 500, 40
PACE_SECONDS = 0.3
"""Mean time between two deliveries, drawn at random."""
LATE_SECONDS = 1.0
TAKEN = re.compile(r": (?P<mails>\d+) mails, \d+ new$")

FIRST_WINDOW, WINDOW = 200, 50
ROUNDS = 3
PATIENCE_SECONDS = 900.0
START_SECONDS = 15.0
STAGES = {
    "stored and closed": re.compile(r"^windows? .* closed$"),
    "claimed": re.compile(r"^run \w+ of \w+ on windows? "),
    "with the trainer": re.compile(r"^run \w+ of \w+ begins$"),
}


def bench_delivery(data: Path, *, quick: bool = False) -> list[BenchRow]:
    """From APPEND until the row is durable in a daemon that waits by IDLE, beside what a bare client is told, and when."""
    if PROGRAM is None:
        return [BenchRow("delivery", math.nan, "", "", None, None, "", None, f"needs Dovecot: {HOW}")]
    mails = archive(data, ARCHIVE)[: DELIVERIES_QUICK if quick else DELIVERIES]
    with tempfile.TemporaryDirectory() as name, dovecot({USER: "secret"}) as server:
        server.maildir(USER)
        home = make_home(Path(name) / "home", live_settings(server))
        log = home.root.with_name("daemon.log")
        with daemon(home) as process, Bystander(server) as bystander, server.connection(USER) as client:
            cpu = sum(psutil.Process(process.pid).cpu_times()[:2])
            sent = _append(client, mails)
            until(lambda: len(_taken(log)) == len(mails) == len(bystander.told), PATIENCE_SECONDS)
            cpu = sum(psutil.Process(process.pid).cpu_times()[:2]) - cpu
        durable = [then - at for then, at in zip(_taken(log), sent, strict=True)]
        told = [then - at for then, at in zip(bystander.told, sent, strict=True)]
    what = f"{len(mails)} deliveries to Dovecot until durable, IDLE"
    note = (
        f"real mails by APPEND at random times, {1 / PACE_SECONDS:.1f} a second on average; the server waits up to half a "
        f"second before it tells; windows close meanwhile; {1000 * cpu / len(mails):.0f} CPU-ms of the daemon a mail"
    )
    return [
        _delivery(f"{what}: p50", _at(durable, 50), _at(told, 50), None, note),
        _delivery(f"{what}: p99", _at(durable, 99), _at(told, 99), LATE_SECONDS, f"slowest {max(durable):.2f} s"),
    ]


def _delivery(what: str, seconds: float, told: float, limit: float | None, note: str) -> BenchRow:
    goal, met = ("", None) if limit is None else (f"under {limit:g} s", seconds < limit)
    return BenchRow(what, seconds, "s", "until a bare IMAPClient is told", told, seconds / told, goal, met, note)


class Bystander:
    """A client in IDLE beside the daemon, within ``with``; ``told`` has for each new mail when it was told of it."""

    def __init__(self, server: Dovecot) -> None:
        self.told: list[float] = []
        self._opened = server.connection(USER, "INBOX")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> Bystander:
        self._client = self._opened.__enter__()
        self._client.idle()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        self._opened.__exit__(kind, error, trace)

    def _listen(self) -> None:
        while not self._ended.is_set():
            for line in self._client.idle_check(timeout=0.2):
                if line[1] == b"EXISTS":
                    self.told += [time.time()] * (int(line[0]) - len(self.told))
        self._client.idle_done()


def _append(client: IMAPClient, mails: Sequence[bytes]) -> list[float]:
    """Puts mails into the inbox at random times; when each was begun."""
    source = random.Random(0)
    began = []
    for raw in mails:
        time.sleep(source.expovariate(1 / PACE_SECONDS))
        began.append(time.time())
        client.append("INBOX", raw)
    return began


def _taken(log: Path) -> list[float]:
    """When each mail was durable at the latest: the daemon says so once it is."""
    return [
        at
        for at, message in _lines(log)
        if (found := TAKEN.search(message)) is not None
        for _ in range(int(found["mails"]))
    ]


def _lines(log: Path) -> Iterator[tuple[float, str]]:
    for line in log.read_text(encoding="utf-8").splitlines():
        said = json.loads(line)
        yield _seconds(said["at"]), said["message"]


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def _at(seconds: Sequence[float], percent: int) -> float:
    """The smallest that at least so many percent of them do not exceed."""
    return sorted(seconds)[math.ceil(len(seconds) * percent / 100) - 1]


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds from the moment a window's last mail was sent until each stage, and until training step 1 was done."""

    stages: Mapping[str, float]
    step: float


def bench_training_start(*, quick: bool = False) -> list[BenchRow]:
    """From the last mail of a window, sent by SMTP, to the first optimizer step, with every role a process of its own."""
    if PROGRAM is None:
        return [BenchRow("training start", math.nan, "", "", None, None, "", None, f"needs Dovecot: {HOW}")]
    rounds = 1 if quick else ROUNDS
    with tempfile.TemporaryDirectory() as name, running(Path(name) / "broker") as broker:
        folder = Path(name)
        mailbox, mails = invented_mail(folder, FIRST_WINDOW + (rounds + 1) * WINDOW)
        new = _distinct(mails)
        model = {"builtin": {"base_tokens": 12_000 if quick else 120_000}}
        window = {"bootstrap": FIRST_WINDOW, "count": WINDOW, "age": None}
        with live(folder, broker, mailbox, window=window, model=model, train={"epochs": 1, "threads": 1}) as room:
            room.send(new[:FIRST_WINDOW])
            room.until(room.settled, PATIENCE_SECONDS)
            starts = [
                _start(room, new[FIRST_WINDOW + each * WINDOW : FIRST_WINDOW + (each + 1) * WINDOW])
                for each in range(rounds)
            ]
    step = statistics.median(start.step for start in starts)
    ways = [f"{stage} after {statistics.median(start.stages[stage] for start in starts):.1f} s" for stage in STAGES]
    each = ", ".join(f"{start.step:.1f}" for start in starts)
    return [
        BenchRow(
            "last mail of a window to training step 1, Kafka",
            step,
            "s",
            "from the trainer's first line to step 1",
            statistics.median(start.step - start.stages["with the trainer"] for start in starts),
            step / statistics.median(start.step - start.stages["with the trainer"] for start in starts),
            f"under {START_SECONDS:g} s",
            step < START_SECONDS,
            f"built-in model at its default size, warm; median of {rounds} windows of {WINDOW} mails ({each}): "
            + ", ".join(ways),
        )
    ]


def _start(room: Live, mails: Sequence[bytes]) -> Start:
    """Sends all but the last mail of a window, waits until they are stored, and sends the last."""
    before = room.rows("SELECT count(*) AS n FROM messages")[0]["n"]
    known = set(room.home.runs.glob("*/metrics.jsonl"))
    room.send(mails[:-1])
    room.until(lambda: room.rows("SELECT count(*) AS n FROM messages")[0]["n"] == before + len(mails) - 1)
    sent = time.time()
    room.send(mails[-1:])
    found: list[Path] = []

    def stepped() -> bool:
        found[:] = [path for path in room.home.runs.glob("*/metrics.jsonl") if path not in known and path.stat().st_size]
        return bool(found)

    room.until(stepped, PATIENCE_SECONDS)
    step = time.time() - sent
    stages = {stage: _first(room, pattern, sent) - sent for stage, pattern in STAGES.items()}
    room.until(room.settled, PATIENCE_SECONDS)
    return Start(stages, step)


def _first(room: Live, pattern: re.Pattern[str], after: float) -> float:
    return next(at for said in room.said if (at := _seconds(said.at)) >= after and pattern.search(said.message) is not None)


def _distinct(mails: Sequence[bytes]) -> list[bytes]:
    """Those that no other repeats, so that each counts in its window."""
    by_id = {email.message_from_bytes(raw).get("Message-ID"): raw for raw in mails}
    return [raw for id_, raw in by_id.items() if id_]
