"""Requests to a deploy target, over HTTP, with what goes wrong said in one sentence."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import DeployError

CONNECT_SECONDS = 5.0
MOST_BYTES = 4_000_000
"""No answer that is asked for here is longer; what a stranger sends beyond is not read."""
PIECE_BYTES = 65_536


@dataclass(frozen=True)
class Caller:
    """Calls one server, which may take ``seconds`` for an answer, to its last byte. ``token`` is asked for before each call
    and kept nowhere (None: none is shown)."""

    url: str
    seconds: float
    token: Callable[[], str] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def json(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's JSON, or its text where it is none; raises ``DeployError`` for anything but success."""
        data = None if body is None else json.dumps(body).encode()
        return self.send(method, path, data, {})

    def send(self, method: str, path: str, data: bytes | None, headers: Mapping[str, str]) -> Any:
        """As :meth:`json`, with the bytes and headers given."""
        found = bytearray()
        with self._answered(method, path, data, headers) as answer:
            until = time.monotonic() + self.seconds
            while len(found) < MOST_BYTES and (piece := answer.read1(PIECE_BYTES)):
                found += piece
                self._require_time(until)
        text = found.decode("utf-8", "replace")
        try:
            return json.loads(text)
        except ValueError:
            return text

    def lines(self, path: str, body: Any) -> Iterator[bytes]:
        """The lines of a streamed answer as they come."""
        with self._answered("POST", path, json.dumps(body).encode(), {}) as answer:
            until = time.monotonic() + self.seconds
            while line := answer.readline(PIECE_BYTES):
                yield line
                self._require_time(until)

    def _require_time(self, until: float) -> None:
        """A server that never comes to an end would hold up all that wait for it."""
        if time.monotonic() > until:
            raise TimeoutError(f"its answer takes longer than {self.seconds:g} s")

    @contextmanager
    def _answered(
        self, method: str, path: str, data: bytes | None, headers: Mapping[str, str]
    ) -> Iterator[http.client.HTTPResponse]:
        where = urlsplit(self.url)
        kind = http.client.HTTPSConnection if where.scheme == "https" else http.client.HTTPConnection
        told = {"Content-Type": "application/json", "Accept": "application/json", **self.headers, **headers}
        if self.token is not None:
            told["Authorization"] = f"Bearer {self.token()}"
        connection = kind(where.hostname or "", where.port, timeout=min(CONNECT_SECONDS, self.seconds))
        try:
            connection.connect()
            assert connection.sock is not None
            connection.sock.settimeout(self.seconds)
            connection.request(method, where.path.rstrip("/") + path, body=data, headers=told)
            answer = connection.getresponse()
            if not 200 <= answer.status < 300:
                raise DeployError(
                    f"{method} {self._place(path)} was answered with {answer.status}{_reason(answer.read(MOST_BYTES))}",
                    hint="see the log of that server",
                )
            yield answer
        except (OSError, http.client.HTTPException) as error:
            why = str(error) or type(error).__name__
            raise DeployError(f"{self._place(path)} cannot be reached ({why})", hint="start it, or look why") from error
        finally:
            connection.close()

    def _place(self, path: str) -> str:
        """The address without a name or password that may be in it."""
        where = urlsplit(self.url)
        host = where.hostname or ""
        return f"{where.scheme}://{host}{f':{where.port}' if where.port else ''}{where.path.rstrip('/')}{path}"


def _reason(data: bytes) -> str:
    """What the server says, in its first 200 characters."""
    text = data.decode("utf-8", "replace")
    try:
        told = json.loads(text)
        error = told.get("error", told.get("detail", told)) if isinstance(told, dict) else told
        text = str(error.get("message", error)) if isinstance(error, dict) else str(error)
    except ValueError:
        pass
    line = " ".join(text.split())[:200]
    return f": {line}" if line else ""
