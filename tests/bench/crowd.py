"""What many callers cost the server: memory, open files, and whether any of them is dropped."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from tests.bench.rows import BenchRow
from tests.support.crowds import ask_at_once, forget_peak, held_by, request
from tests.support.daemons import until
from tests.support.served import make_served
from tests.support.servers import SECONDS, server

CALLERS, QUICK_CALLERS, ROUNDS = 1_000, 200, 5
MOST_MEMORY = 64.0


def bench_crowd(*, quick: bool = False) -> list[BenchRow]:
    """Every connection is open before the first request is sent; five times, so that what stays behind would add up."""
    callers = QUICK_CALLERS if quick else CALLERS
    with tempfile.TemporaryDirectory() as name, server(make_served(Path(name) / "home").home) as running:
        until(lambda: "candidate" in running.ready()["aliases"], SECONDS)
        body = {"model": "candidate", "messages": [{"role": "user", "content": "x"}], "max_tokens": 8, "stream": True}
        asked = request("/v1/chat/completions", running.token, body)
        pid = running.process.pid
        ask_at_once(running.port, [asked] * 8)
        forget_peak(pid)
        before = held_by(pid)
        begun = time.perf_counter()
        rounds = [ask_at_once(running.port, [asked] * callers) for _ in range(ROUNDS)]
        took = (time.perf_counter() - begun) / ROUNDS
        until(lambda: held_by(pid).files <= before.files, SECONDS)
        more = (held_by(pid).peak - before.memory) / 2**20
    answered, refused = (sum(statuses[status] for statuses in rounds) for status in (200, 503))
    lost = callers * ROUNDS - answered - refused
    note = (
        f"{ROUNDS} times {callers:,} callers at once, {took:.1f} s each: {answered:,} answered, {refused:,} told to come "
        "back (503); afterwards no file more was open than before"
    )
    return [
        BenchRow(f"{callers:,} connections: dropped or failed", lost, "requests", "", None, None, "0", lost == 0, note),
        BenchRow(
            f"{callers:,} connections: memory on top, peak",
            more,
            "MiB",
            "",
            None,
            None,
            f"at most {MOST_MEMORY:g} MiB",
            more <= MOST_MEMORY,
            note,
        ),
    ]
