"""An SMTP server on loopback that hands what it takes to Dovecot's own delivery agent, as people's mail servers do."""

from __future__ import annotations

import asyncio
import shutil
import smtplib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP

from tests.support.dovecot import HOST, HOW, Dovecot
from tests.support.ports import free_ports
from tests.support.services import require

AGENT = shutil.which("dovecot-lda", path="/usr/lib/dovecot:/usr/libexec/dovecot")
LIMIT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class PostOffice:
    """Where mail can be sent to: an address is a user of the mail server at any host."""

    port: int

    def send(self, mails: Iterable[bytes], *, sender: str, to: str) -> int:
        """Sends mails in one SMTP session, one after the other; each is in its folder when the next is sent. Returns how
        many there were; raises ``smtplib.SMTPException`` when one is not taken."""
        count = 0
        with smtplib.SMTP(HOST, self.port) as client:
            for raw in mails:
                client.sendmail(sender, [to], raw)
                count += 1
        return count


@contextmanager
def postoffice(server: Dovecot) -> Iterator[PostOffice]:
    """A post office for the accounts of ``server``. Skips the test where the delivery agent is not installed."""
    require("dovecot-lda", AGENT is not None, HOW)
    (port,) = free_ports(1)
    controller = _Controller(_Handing(server.configuration), hostname=HOST, port=port, data_size_limit=LIMIT_BYTES)
    controller.start()
    try:
        yield PostOffice(port)
    finally:
        controller.stop()


class _Lenient(SMTP):  # type: ignore[misc]
    """Takes lines of any length: mail programs do not keep to the thousand bytes of RFC 5321."""

    line_length_limit = LIMIT_BYTES


class _Controller(Controller):  # type: ignore[misc]
    def factory(self) -> SMTP:
        return _Lenient(self.handler, **self.SMTP_kwargs)


class _Handing:
    """What the SMTP server does with a mail: says yes when the delivery agent has it in the folder."""

    def __init__(self, configuration: Path) -> None:
        self._configuration = configuration

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        for address in envelope.rcpt_tos:
            user = str(address).partition("@")[0]
            command = [str(AGENT), "-c", str(self._configuration), "-d", user, "-f", str(envelope.mail_from), "-e"]
            agent = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            _, said = await agent.communicate(envelope.original_content)
            if agent.returncode != 0:
                print(said.decode(errors="replace"), file=sys.stderr)
                return "451 the delivery agent does not take it"
        return "250 delivered"
