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

from pipeline.config.settings import Settings
from pipeline.versions import VERSIONS
from registry.byhand import promote, rollback
from retrain.offline import TIED, keep_offline
from streams.stores import store_of
from streams.times import utc_now
from tests.bench.rows import BenchRow
from tests.support.daemons import until
from tests.support.served import MAILBOX, Served, make_served
from tests.support.servers import SECONDS, Running, server

CONNECTIONS, SWAPS = 32, 100
CLIENTS = 16
TOKENS = 128
PROMPT = "Subject: the tide and the boats. What is there to say of it?"
ROUNDS = 3
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
        reference = generate_rate(served, tokens)
        running = stack.enter_context(server(served.home))
        for name in ("aahoy", "abread"):
            assert running.ask("POST", "/api/adapters/load", {"adapter_id": name})[0] == 200
        return [
            *rate_rows(running, tokens, reference),
            *swap_rows(running, 10 if quick else SWAPS),
            promotion_row(running, served, 2 if quick else 10),
        ]


def generate_rate(served: Served, tokens: int) -> float:
    """Tokens a second of transformers' own ``generate``, one prompt at a time, here: the middle of some rounds."""
    import torch

    from retrain.serving.model import ServedModel, serving_compute

    model = ServedModel(served.home, served.base, served.settings.model, serving_compute(served.settings.model, "cpu", 1))
    model.load(served.adapters["ahoy"])
    given = torch.tensor([model.encode(PROMPT)])
    rates = []
    for _ in range(ROUNDS + 1):
        begun = time.perf_counter()
        with torch.inference_mode(), model.compute.precision():
            model.use("aahoy").generate(
                input_ids=given,
                attention_mask=torch.ones_like(given),
                max_new_tokens=tokens,
                do_sample=False,
                pad_token_id=model.padding,
            )
        rates.append(tokens / (time.perf_counter() - begun))
    return statistics.median(rates[1:])


def rate_rows(running: Running, tokens: int, reference: float) -> list[BenchRow]:
    """The server's own rate with one client and with many, streaming, against ``generate``."""
    rows = []
    for clients, goal in ((1, 0.95), (CLIENTS, 4.0)):
        rates = []
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            with ThreadPoolExecutor(clients) as pool:
                answers = list(pool.map(lambda _: stream(running, "aahoy", tokens), range(clients)))
            assert len({answer.text for answer in answers}) == 1
            rates.append(clients * tokens / (time.perf_counter() - begun))
        rate = statistics.median(rates)
        rows.append(
            BenchRow(
                f"server, {clients} client{'s' if clients > 1 else ''} streaming",
                rate,
                "tokens/s",
                "transformers' generate, one prompt",
                reference,
                rate / reference,
                f"at least {goal:g} times",
                rate >= goal * reference,
                f"built-in model (NF4), {tokens} tokens each, one CPU thread; the clients share the machine",
            )
        )
    return rows


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
