"""A server in a process of its own, as people run it: started, asked, stopped."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.home import Home
from tests.support.daemons import until
from tests.support.ports import free_ports
from tests.support.program import ENVIRONMENT, mailtide

SECONDS = 240.0
"""How long a busy machine may take to import what a model needs."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that listens on loopback."""

    process: subprocess.Popen[str]
    port: int
    token: str
    log: Path

    @property
    def url(self) -> str:
        """What a client of OpenAI's is given as ``base_url``."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def said(self) -> str:
        """Its log so far."""
        return self.log.read_text(encoding="utf-8")

    def ask(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> tuple[int, Any, dict[str, str]]:
        """One request: status, JSON and headers (in lower case) of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            headers = {
                "Authorization": f"Bearer {self.token if token is None else token}",
                "Content-Type": "application/json",
            }
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            told = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, json.loads(answer.read() or b"null"), told
        finally:
            connection.close()

    def ready(self) -> Any:
        """What ``/ready`` tells."""
        return self.ask("GET", "/ready")[1]

    def stop(self, seconds: float = 30.0) -> int:
        """Asks it to stop, and gives its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


@contextmanager
def server(home: Home, *arguments: str) -> Iterator[Running]:
    """`mailtide serve`, once it serves; killed when it is not gone at the end. What it says is in ``server.log``."""
    (port,) = free_ports(1)
    log = home.root.with_name("server.log")
    with log.open("a") as out:
        process = subprocess.Popen(
            mailtide(home.root, "serve", "--port", str(port), *arguments),
            stdout=out,
            stderr=out,
            text=True,
            env={**ENVIRONMENT, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
    try:
        until(lambda: re.search("Serving", log.read_text()) or process.poll() is not None, SECONDS)
        assert process.poll() is None, log.read_text(encoding="utf-8")
        running = Running(process, port, home.server_token.read_text(encoding="utf-8").split()[0], log)
        until(lambda: running.ready()["ready"] or process.poll() is not None, SECONDS)
        assert process.poll() is None, log.read_text(encoding="utf-8")
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
