"""The server: what a swap costs those who stream, what a shared batch is worth, and how soon a promotion is served.

The model is the built-in one in its default shape, with random weights: how many tokens it writes in a second does not
depend on what it has learned. What each adapter says must be its own, though, so two adapters learn a sentence each.
"""

from __future__ import annotations

import itertools
import json
import statistics
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import psutil

from pipeline.config.settings import Settings
from pipeline.times import utc_now
from pipeline.versions import VERSIONS
from registry.byhand import promote, rollback
from retrain.offline import TIED, keep_offline
from streams.owning.stores import store_of
from tests.bench.generating import Generating
from tests.bench.rows import BenchRow
from tests.support.daemons import until
from tests.support.served import MAILBOX, Served, make_served
from tests.support.servers import SECONDS, Running, server

CONNECTIONS, SWAPS = 32, 100
CLIENTS = 16
TOKENS = 128
PROMPT = "Subject: the tide and the boats. What is there to say of it?"
ROUNDS = 7
QUIET_SECONDS = 60.0
"""How long it is watched without swaps."""


def bench_serving(*, quick: bool = False) -> list[BenchRow]:
    """One server for all: rate first, then swaps under load, then promotions."""
    keep_offline()
    warnings.filterwarnings("ignore", message=TIED)
    shape = {"model": {"dtype": "float32"}, "serve": {"device": "cpu", "threads": 1, "rate": 0, "candidate": False}}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        served = make_served(folder / "home", Settings.model_validate(shape))
        tokens = TOKENS // 4 if quick else TOKENS
        running = stack.enter_context(server(served.home))
        for name in ("aahoy", "abread"):
            assert running.ask("POST", "/api/adapters/load", {"adapter_id": name})[0] == 200
        return [
            *rate_rows(running, served, tokens),
            *swap_rows(running, 10 if quick else SWAPS),
            promotion_row(running, served, 2 if quick else 10),
        ]


def rate_rows(running: Running, served: Served, tokens: int) -> list[BenchRow]:
    """The server's rate with one client and with many, streaming, against ``generate`` over the same weights: in pairs, one
    right after the other and who begins by turns, so that what else the machine does meets both. Each figure is the middle
    one of its pairs, the ratio as well."""
    generating = Generating(served, "ahoy", PROMPT)
    process = psutil.Process(running.process.pid)
    answered_rate(running, 1, tokens)
    generating.rate(tokens)
    as_loaded = statistics.median(generating.rate_as_loaded(tokens) for _ in range(ROUNDS))
    rows = []
    for clients, goal in ((1, 0.95), (CLIENTS, 4.0)):
        before = sum(process.cpu_times()[:2]), generating.cpu_seconds
        pairs = [_pair(running, generating, clients, tokens, turned=place % 2 == 1) for place in range(ROUNDS)]
        ours_ms = 1_000 * (sum(process.cpu_times()[:2]) - before[0]) / (clients * tokens * ROUNDS)
        theirs_ms = 1_000 * (generating.cpu_seconds - before[1]) / (tokens * ROUNDS)
        ratio = statistics.median(ours / reference for ours, reference in pairs)
        rows.append(
            BenchRow(
                f"server, {clients} client{'s' if clients > 1 else ''} streaming",
                statistics.median(ours for ours, _ in pairs),
                "tokens/s",
                "transformers' generate, one prompt",
                statistics.median(reference for _, reference in pairs),
                ratio,
                f"at least {goal:g} times",
                ratio >= goal,
                f"{ROUNDS} pairs, {tokens} tokens an answer, one CPU thread each; {ours_ms:.2f} CPU-ms of the server a "
                f"token and {theirs_ms:.2f} of generate; built-in model, its NF4 weights unpacked once for both; packed, "
                f"as others load them, generate writes {as_loaded:.0f} tokens/s",
            )
        )
    return rows


def _pair(running: Running, generating: Generating, clients: int, tokens: int, *, turned: bool) -> tuple[float, float]:
    """The server's rate and that of ``generate``; ``turned`` measures the latter first."""
    if turned:
        reference = generating.rate(tokens)
        return answered_rate(running, clients, tokens), reference
    return answered_rate(running, clients, tokens), generating.rate(tokens)


def answered_rate(running: Running, clients: int, tokens: int) -> float:
    """Tokens a second that so many clients are answered at once, from their requests to their last bytes."""
    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(lambda _: stream(running, "aahoy", tokens), range(clients)))
    assert len({answer.text for answer in answers}) == 1
    return clients * tokens / (time.perf_counter() - begun)


def swap_rows(running: Running, swaps: int) -> list[BenchRow]:
    """Streams without a break, first undisturbed, then while the alias moves, and adapters come and go."""
    alone = {name: stream(running, name, 32).text for name in ("aahoy", "abread")}
    assert alone["aahoy"] != alone["abread"]
    point(running, "aahoy")
    usual = under_load(running, lambda: time.sleep(QUIET_SECONDS * swaps / SWAPS), alone)
    took: list[float] = []

    def swap() -> list[float]:
        names = itertools.cycle(("abread", "aahoy"))
        gone = itertools.cycle(("aahoy", "abread"))
        for _ in range(swaps):
            begun = time.perf_counter()
            name, left = next(names), next(gone)
            assert running.ask("POST", "/api/adapters/load", {"adapter_id": name})[0] == 200
            point(running, name)
            took.append(time.perf_counter() - begun)
            assert running.ask("POST", "/api/adapters/unload", {"adapter_id": left})[0] == 200
        return took

    swapped = under_load(running, swap, alone)
    first, before = percentile(swapped.first, 99), percentile(usual.first, 99)
    wrong = swapped.wrong + usual.wrong
    note = f"{CONNECTIONS} connections, {swaps} swaps, {swapped.answers} answers meanwhile"
    return [
        BenchRow("failed or mixed answers", wrong, "answers", "", None, None, "0", wrong == 0, note),
        BenchRow(
            "first token during swaps, p99",
            first,
            "s",
            "the same without swaps",
            before,
            first / before,
            "at most 1.5 times",
            first <= 1.5 * before,
            note,
        ),
        BenchRow(
            "swap under load, slowest", max(took), "s", "", None, None, "under 2 s", max(took) < 2, "load, smoke test, flip"
        ),
    ]


def promotion_row(running: Running, served: Served, times: int) -> BenchRow:
    """From the journal's entry to the first answer by the new champion, without a deploy target."""
    took: list[float] = []
    for name in itertools.islice(itertools.cycle(("aahoy", "abread")), times):
        move = promote if len(took) < 2 else rollback
        with store_of(served.home, served.settings, VERSIONS, writes=True) as store:
            move(store, served.home, MAILBOX, name, "bench", "bench", utc_now())
        begun = time.perf_counter()
        until(lambda name=name: stream(running, "champion", 1).model == name, SECONDS)  # type: ignore[misc]
        took.append(time.perf_counter() - begun)
    return BenchRow(
        "promotion to being served, slowest",
        max(took),
        "s",
        "",
        None,
        None,
        "under 5 s",
        max(took) < 5,
        f"{times} promotions and rollbacks, followed through the registry",
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What was streamed: who wrote it, what, and the seconds to its first token."""

    model: str
    text: str
    first: float


@dataclass(frozen=True, slots=True)
class Load:
    """Seconds to the first token of every answer, and how many answers were not what their adapter says."""

    first: list[float]
    wrong: int

    @property
    def answers(self) -> int:
        return len(self.first)


def under_load(running: Running, work: Callable[[], object], alone: dict[str, str]) -> Load:
    """``CONNECTIONS`` streams one after another each, until ``work`` is done."""
    done = threading.Event()

    def read() -> list[Answer | None]:
        found: list[Answer | None] = []
        while not done.is_set():
            try:
                found.append(stream(running, "champion", 32))
            except (OSError, ValueError, LookupError):
                found.append(None)
        return found

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        readers = [pool.submit(read) for _ in range(CONNECTIONS)]
        try:
            work()
        finally:
            done.set()
        answers = [answer for reader in readers for answer in reader.result()]
    right = [answer for answer in answers if answer is not None and alone.get(answer.model) == answer.text]
    return Load([answer.first for answer in right], len(answers) - len(right))


def stream(running: Running, model: str, tokens: int) -> Answer:
    """One streamed answer; raises when it breaks off."""
    body = json.dumps({"model": model, "prompt": PROMPT, "max_tokens": tokens, "temperature": 0, "stream": True})
    connection = HTTPConnection("127.0.0.1", running.port, timeout=SECONDS)
    try:
        begun = time.perf_counter()
        headers = {"Authorization": f"Bearer {running.token}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/completions", body, headers)
        answer = connection.getresponse()
        text, first, name = "", 0.0, ""
        for line in answer:
            data = line.removeprefix(b"data: ").strip()
            if data == b"[DONE]":
                return Answer(name, text, first)
            if data:
                event = json.loads(data)
                first = first or time.perf_counter() - begun
                name, text = event["model"], text + event["choices"][0]["text"]
        raise ValueError("the stream broke off")
    finally:
        connection.close()


def point(running: Running, name: str) -> None:
    assert running.ask("POST", "/api/aliases/champion", {"adapter_id": name})[0] == 200


def percentile(values: list[float], share: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[share - 1]
