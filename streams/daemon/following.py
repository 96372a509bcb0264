"""Follows one feed for as long as the daemon runs: reads what is new, waits, and tries again when its source is away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from pipeline.domain import Item
from pipeline.errors import FeedError, SecretError, SourceAway
from pipeline.times import utc_now
from streams.daemon.board import Board, FeedState
from streams.daemon.intake import Intake
from streams.daemon.wording import closed_line
from streams.feeds.backoff import delays
from streams.feeds.contract import Handed, LiveFeed
from streams.owning.batch import Taken
from streams.owning.ingest import batches

log = logging.getLogger(__name__)

WAIT_SECONDS = 300.0
"""How long a feed is waited for at once; then it is read again, whatever it says."""

MENDING_SECONDS = 60.0
"""The least that is waited when a person must mend something: a wrong password, tried again and again, locks accounts."""

Parse = Callable[[list[Handed]], list[Item]]
"""What parsers make of a batch, in its order."""


class Following:
    """The life of one feed. ``idle`` while it waits for mail, having read all there is; ``away`` after a failure."""

    def __init__(
        self, mailbox: str, feed: LiveFeed, intake: Intake, parse: Parse, board: Board, stop: threading.Event
    ) -> None:
        self.idle = False
        self.away: FeedError | SecretError | None = None
        self.feed = feed
        self._mailbox = mailbox
        self._intake = intake
        self._parse = parse
        self._board = board
        self._stop = stop
        self._told = ""
        board.add_feed(FeedState(mailbox, feed.name, feed.source))

    def run(self) -> None:
        """Until ``stop`` is set. What a person must mend is told once, and tried again later all the same."""
        waits = delays()
        try:
            while not self._stop.is_set():
                try:
                    self._read()
                    waits = delays()
                    self.idle = True
                    self.feed.wait(WAIT_SECONDS, self._stop)
                except (FeedError, SecretError) as error:
                    self._tell(error)
                    least = 0.0 if isinstance(error, SourceAway) else MENDING_SECONDS
                    self._stop.wait(max(least, next(waits)))
        finally:
            self.feed.close()

    def _read(self) -> None:
        self.idle = False
        self._board.feed_is(self.feed.name, "reading")
        after = self._intake.last_taken(self._mailbox, self.feed.name)
        for batch in batches(self.feed.items(after)):
            taken = self._intake.take(self._mailbox, self._parse(batch))
            self._board.taken(self.feed.name, taken, utc_now())
            self._log(taken)
            if self._stop.is_set():
                return
        if self.away is not None:
            log.info("%s answers again", self.feed.source)
        self.away, self._told = None, ""
        self._board.feed_is(self.feed.name, "waiting")

    def _log(self, taken: Taken) -> None:
        if taken.read:
            log.info("%s: %d mails, %d new", self.feed.source, taken.read, taken.new)
        if taken.closed:
            log.info("%s", closed_line(self._mailbox, taken.closed))

    def _tell(self, error: FeedError | SecretError) -> None:
        self.idle, self.away = False, error
        self._board.feed_is(self.feed.name, "away", str(error))
        if str(error) != self._told:
            log.warning("%s: %s", self.feed.source, error)
            self._told = str(error)
