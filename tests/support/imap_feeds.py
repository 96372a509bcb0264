"""An IMAP folder as a feed, for tests: made, read, and waited for."""

from __future__ import annotations

import threading
from pathlib import Path

from pipeline.config.feed_settings import ImapFeedSettings
from pipeline.domain import Arrival
from pipeline.errors import FeedError
from pipeline.home import Home
from streams.feeds.contract import Handed
from streams.feeds.imap import ImapFeed

LIMIT_S = 120.0


def crlf(raw: bytes) -> bytes:
    return raw.replace(b"\n", b"\r\n")


def feed(root: Path, settings: ImapFeedSettings, folder: str = "INBOX", **options: object) -> ImapFeed:
    return ImapFeed(Home(root / "home"), "main", settings, folder, **options)  # type: ignore[arg-type]


def arrivals(items: list[Handed]) -> list[Arrival]:
    return [item for item in items if isinstance(item, Arrival)]


def raws(items: list[Handed]) -> list[bytes]:
    return [item.raw for item in arrivals(items)]


def shape(items: list[Handed]) -> list[tuple[str, int]]:
    return [(type(item).__name__, item.number) for item in items]


def waiting(source: ImapFeed, stop: threading.Event) -> tuple[threading.Thread, list[FeedError]]:
    """A thread that waits for the feed, far longer than any test goes on, and what it ended with."""
    raised: list[FeedError] = []

    def wait() -> None:
        try:
            source.wait(10 * LIMIT_S, stop)
        except FeedError as error:
            raised.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread, raised
