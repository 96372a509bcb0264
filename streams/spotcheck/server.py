"""Shows a sitting in the browser: loopback alone, behind a token in the address, for as long as it lasts."""

from __future__ import annotations

import hmac
import json
import secrets
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, get_args

from pipeline.errors import MailtideError, UsageError
from streams.spotcheck.judging import Choice, Sitting
from streams.spotcheck.page import content_policy, page

HOST = "127.0.0.1"
MOST_BYTES = 1_000
SECONDS = 30
"""How long a connection may take to say what it wants."""

Result = Callable[[], Sequence[str]]


def show(mailbox: str, sitting: Sitting, result: Result, port: int, announce: Callable[[str], None]) -> None:
    """Serves the sitting until its end; ``announce`` is given the address, ``result`` gives the lines that stand there
    then.

    Raises ``UsageError`` where ``port`` (0: any that is free) cannot be listened on.
    """
    try:
        server = _Server(mailbox, sitting, result, port)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {HOST}, port {port}: {error.strerror or error}",
            hint="leave out --port, and a free one is taken",
        ) from error
    serving = threading.Thread(target=server.serve_forever, name="spot check", daemon=True)
    serving.start()
    try:
        announce(f"http://{HOST}:{server.server_port}/{server.token}/")
        server.over.wait()
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, mailbox: str, sitting: Sitting, result: Result, port: int) -> None:
        super().__init__((HOST, port), _Handler)
        self.sitting = sitting
        self.result = result
        self.page = page(mailbox)
        self.token = secrets.token_urlsafe(24)
        self.over = threading.Event()

    def state(self) -> dict[str, Any]:
        """What the page shows; of the pair its words alone, in the order in which it stands there."""
        pair = self.sitting.current
        line = pair.line if pair is not None else None
        return {
            "number": self.sitting.number,
            "total": self.sitting.total,
            "pair": None
            if pair is None or line is None
            else {
                "subject": line.subject or "(no subject)",
                "asked_lead": line.asked_lead,
                "asked": line.asked,
                "real_lead": line.real_lead,
                "real": line.real,
                "first": pair.first,
                "second": pair.second,
            },
            "result": list(self.result()) if pair is None else None,
        }


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = SECONDS

    def do_GET(self) -> None:
        wanted = self._wanted()
        if wanted == "":
            self._answer(HTTPStatus.OK, self.server.page, "text/html; charset=utf-8")
        elif wanted == "state":
            self._state()
        elif wanted is not None:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def do_POST(self) -> None:
        wanted = self._wanted()
        if wanted is None:
            return
        said = self._said() if wanted == "verdict" else None
        if said is None:
            self._refuse(HTTPStatus.BAD_REQUEST, f"say number and choice, one of {', '.join(get_args(Choice))}")
            return
        try:
            self.server.sitting.take(*said)
        except (MailtideError, OSError) as error:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, f"It was not kept: {error}")
            return
        self._state()
        if self.server.sitting.current is None:
            self.server.over.set()

    def _wanted(self) -> str | None:
        """What is asked for, below the token; None where that was refused."""
        token, slash, rest = self.path.removeprefix("/").partition("/")
        host = self.headers.get("Host", "").rpartition(":")[0]
        # Another name for this machine is a page elsewhere that had its name point here.
        if hmac.compare_digest(token.encode(), self.server.token.encode()) and slash and host in (HOST, "localhost"):
            return rest.partition("?")[0]
        self._refuse(HTTPStatus.FORBIDDEN, "open the address that the command printed")
        return None

    def _said(self) -> tuple[int, Choice] | None:
        try:
            length = int(self.headers.get("Content-Length", ""))
            told: Any = json.loads(self.rfile.read(length)) if 0 < length <= MOST_BYTES else None
            number, choice = told["number"], told["choice"]
        except (ValueError, KeyError, TypeError):
            return None
        return (number, choice) if type(number) is int and choice in get_args(Choice) else None

    def _state(self) -> None:
        try:
            state = self.server.state()
        except (MailtideError, OSError) as error:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        else:
            self._answer(HTTPStatus.OK, json.dumps(state), "application/json")

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self.close_connection = True
        self._answer(status, json.dumps({"error": why}), "application/json")

    def _answer(self, status: HTTPStatus, text: str, kind: str) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Content-Security-Policy", content_policy()),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        return "mailtide"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the address holds the token."""
