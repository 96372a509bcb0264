"""The mail of a chaos run: two generated mailboxes, one delivered to a mail server and one appended to an mbox file.

Both sources keep one order for good (UIDs, places in a file), whatever is killed meanwhile. So who reads them later, in
peace, meets the same mails in the same order.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from pipeline.arrival.identity import base_key
from pipeline.domain import Arrival
from pipeline.home import Home
from pipeline.parsing.mail import parse_mail
from streams.demo.mailbox import write_mailbox
from streams.feeds.mbox import MboxFeed
from tests.support.archives import mboxrd
from tests.support.dovecot import Dovecot

USER, PASSWORD = "chaos", "no secret"


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail, when it came, and the key that the store will know it by; None when another mail has the same."""

    raw: bytes
    at: datetime
    key: str | None


def generated(seed: int, count: int) -> list[Mail]:
    """About ``count`` mails in order of arrival, duplicates and damaged ones among them; the same for the same seed."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "generated.mbox"
        write_mailbox(archive, seed=seed, messages=count)
        feed = MboxFeed(Home(Path(folder)), "generated", archive)
        arrivals = [item for item in feed.items(after=0) if isinstance(item, Arrival)]
    keys = [base_key(parse_mail(arrival.raw)) for arrival in arrivals]
    times = Counter(keys)
    return [
        Mail(arrival.raw, arrival.received_at, key if times[key] == 1 else None)
        for arrival, key in zip(arrivals, keys, strict=True)
    ]


class Source(Protocol):
    """Where mail of one mailbox comes from."""

    mailbox: str

    @property
    def feed(self) -> dict[str, Any]:
        """The settings of the feed that reads it."""
        ...

    def deliver(self, mails: Sequence[Mail]) -> None:
        """Adds mails, in this order."""
        ...


class Inbox:
    """A folder of a mail server, which takes mail whether the server runs or not."""

    mailbox = "imap"

    def __init__(self, server: Dovecot) -> None:
        self._server = server

    @property
    def feed(self) -> dict[str, Any]:
        return self._server.settings(USER).model_dump(mode="json", exclude_none=True)

    def deliver(self, mails: Sequence[Mail]) -> None:
        for mail in mails:
            self._server.deliver(USER, [mail.raw], at=mail.at)


class GrowingFile:
    """An mbox file that mail is appended to."""

    mailbox = "mbox"

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()

    @property
    def feed(self) -> dict[str, Any]:
        return {"kind": "mbox", "path": str(self._path), "poll": 1.0}

    def deliver(self, mails: Sequence[Mail]) -> None:
        with self._path.open("ab") as file:
            for mail in mails:
                separator = f"From sender@chaos.example {mail.at:%a %b %d %H:%M:%S %Y}"
                file.write(mboxrd([mail.raw], separator=separator.encode()))
