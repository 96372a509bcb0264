"""Those that notices go to: a webhook and a mail server, real ones, on loopback."""

from __future__ import annotations

import json
import ssl
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from tests.support.certificates import Certificate


@dataclass
class Posts:
    """What a webhook was sent: each text with the headers. It answers by ``answers``, one a post, then 200."""

    port: int
    texts: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answers: deque[int] = field(default_factory=deque)
    came: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/services/hook"

    @property
    def accepted(self) -> list[str]:
        return [text for text, answer in zip(self.texts, self._answered, strict=True) if answer == 200]

    _answered: list[int] = field(default_factory=list)

    def take(self, text: str, headers: dict[str, str]) -> int:
        answer = self.answers.popleft() if self.answers else 200
        self.texts.append(text)
        self.headers.append(headers)
        self._answered.append(answer)
        self.came.set()
        return answer


@contextmanager
def webhook(port: int, posts: Posts | None = None, certificate: Certificate | None = None) -> Iterator[Posts]:
    """A webhook on ``port``, which may be given again after it was down."""
    found = posts or Posts(port)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert set(body) == {"text"}
            answer = found.take(body["text"], dict(self.headers))
            self.send_response(answer)
            if answer in (301, 302, 307):
                self.send_header("Location", found.url)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.chain, certificate.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Letters:
    """What a mail server took: mails as they are read, and to whom. Addresses in ``refused`` are refused."""

    mails: list[Message] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address in self.refused:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.mails.append(message_from_bytes(envelope.content, policy=default))
        self.recipients.append(list(envelope.rcpt_tos))
        return "250 taken"


@contextmanager
def mail_server(port: int, certificate: Certificate, user: str, password: str) -> Iterator[Letters]:
    """A mail server that takes mail only over STARTTLS and from ``user``."""
    found = Letters()

    def known(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        right = isinstance(data, LoginPassword) and (data.login, data.password) == (user.encode(), password.encode())
        return AuthResult(success=right, handled=False)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.chain, certificate.key)
    controller = Controller(
        found,
        hostname="127.0.0.1",
        port=port,
        tls_context=context,
        require_starttls=True,
        authenticator=known,
        auth_required=True,
    )
    controller.start()
    try:
        yield found
    finally:
        controller.stop()
