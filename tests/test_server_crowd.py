"""The server among many callers, slow ones, rude ones and strangers: it answers or refuses, and keeps nothing of them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.crowds import Held, ask_at_once, forget_peak, held_by, request
from tests.support.daemons import until
from tests.support.served import make_served
from tests.support.servers import SECONDS, Running, server

CROWD = 1_000
ROUNDS = 2
SLOW, HUGE, HUGE_BYTES = 64, 16, 100_000_000
MEMORY = 64 * 2**20
"""What many callers may cost in all, for buffers and threads: 1,000 bodies or answers at once would be more."""
THREADS = 48
"""The workers of Starlette's pool, and a few."""

pytestmark = pytest.mark.timeout(900)  # a busy machine takes minutes to import what a model needs


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with server(make_served(tmp_path_factory.mktemp("crowd") / "home").home) as one:
        until(lambda: "candidate" in one.ready()["aliases"], SECONDS)
        ask_at_once(one.port, [chat(one)] * 8)
        yield one


@pytest.fixture
def before(running: Running) -> Held:
    """What the server holds with nobody there."""
    forget_peak(running.process.pid)
    return held_by(running.process.pid)


def chat(running: Running, tokens: int = 4, *, stream: bool = False) -> bytes:
    asked = {"model": "candidate", "messages": [{"role": "user", "content": "x"}], "max_tokens": tokens, "stream": stream}
    return request("/v1/chat/completions", running.token, asked)


def check_nothing_stays(running: Running, before: Held) -> None:
    """Files are closed again, nobody holds the adapter, threads and memory are bounded, nothing failed."""
    pid = running.process.pid
    until(lambda: held_by(pid).files <= before.files, SECONDS)
    until(lambda: set(running.ready()["adapters"].values()) == {0}, SECONDS)
    now = held_by(pid)
    assert now.threads <= before.threads + THREADS
    assert now.peak <= before.memory + MEMORY
    assert " 500 in " not in running.said
    assert "Traceback" not in running.said


def test_a_thousand_callers_at_once_are_answered_or_told_to_come_back(running: Running, before: Held) -> None:
    for _ in range(ROUNDS):
        asked = [chat(running, stream=place % 2 == 0) for place in range(CROWD)]
        statuses = ask_at_once(running.port, asked)
        assert set(statuses) == {200, 503}
        assert statuses.total() == CROWD
        assert statuses[200] >= 100, "as many as may wait are answered"
    check_nothing_stays(running, before)


def test_a_thousand_strangers_are_refused_and_cost_nothing(running: Running, before: Held) -> None:
    strangers = [request("/v1/models", f"{running.token[:-1]}{place}") for place in range(CROWD)]
    statuses = ask_at_once(running.port, strangers)
    assert set(statuses) <= {401, 503}
    assert statuses[401] >= 500
    check_nothing_stays(running, before)


def test_bodies_of_100_mb_side_by_side_are_never_kept(running: Running, before: Held) -> None:
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {running.token}\r\n"
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with ExitStack() as stack:
        lines = [stack.enter_context(_line(running)) for _ in range(HUGE)]
        for line in lines:
            line.sendall(f"{head}Transfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n".encode())
        open_still, sent = set(lines), 0
        while open_still and sent < HUGE_BYTES:
            open_still = {line for line in open_still if _sends(line, chunk)}
            sent += len(chunk)
        assert not open_still, "each is cut off on the way"
    check_nothing_stays(running, before)


def test_readers_that_never_read_hold_up_nobody_and_are_let_go(running: Running, before: Held) -> None:
    with ExitStack() as stack:
        lines = [stack.enter_context(_line(running)) for _ in range(SLOW)]
        for line in lines:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_024)
            line.sendall(chat(running, 200, stream=True))
        assert ask_at_once(running.port, [chat(running)]) == {200: 1}
    check_nothing_stays(running, before)


def _line(running: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", running.port), SECONDS)


def _sends(line: socket.socket, chunk: bytes) -> bool:
    try:
        line.sendall(chunk)
    except OSError:
        return False
    return True
