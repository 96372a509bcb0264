"""What every source of mail promises. Who reads a feed never knows whether it is a file, a folder or a server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Protocol

from pipeline.domain import Arrival, DeadLetter, Tick

Handed = Arrival | DeadLetter | Tick
"""What a feed hands on, numbered. A dead letter is a mail that could not even be read whole."""


class Feed(Protocol):
    """A source of mail that notes what it reads (:mod:`streams.feeds.numbering`) before it hands it on."""

    @property
    def kind(self) -> str:
        """``mbox``, ``maildir``, ``imap``, ``replay``."""
        ...

    @property
    def name(self) -> str:
        """Names the feed within its home, and its journal: ``MAILBOX.`` and what tells it from its other feeds."""
        ...

    @property
    def source(self) -> str:
        """Where the mail comes from, for people: a path, or a URL without a password."""
        ...

    def items(self, after: int) -> Iterator[Handed]:
        """One pass: everything numbered above ``after``, in order, then what is new at the source, and at its end a tick
        ``CAUGHT_UP``, unless nothing came since the last one. Each number is durably noted before its item is yielded.

        May be called again, after a pass has ended or failed. Raises ``SourceAway`` when the source does not answer, and
        ``FeedError`` when it is not what it was or cannot be used, after everything that came before.
        """
        ...


class LiveFeed(Feed, Protocol):
    """A feed whose source goes on: it can be waited for."""

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Returns soon after new mail may have come, when ``stop`` is set (within a second), or after ``seconds``.

        Raises as ``items`` does."""
        ...

    def close(self) -> None:
        """Lets go of connections and watches; the feed can be used again afterwards."""
        ...
