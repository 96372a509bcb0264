"""An mbox file that mail is appended to, read as it grows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pipeline.errors import SourceAway
from pipeline.home import Home
from streams.feeds.contract import Handed
from streams.feeds.mbox import SETTLE_SECONDS, MboxFeed
from streams.feeds.naming import feed_name
from streams.feeds.watching import Watch


class MboxTail:
    """:class:`MboxFeed` as a feed that goes on: under the same name and journal as an import of the same file.

    A file that is not there is waited for. One that was rewritten or replaced is refused, as ``MboxFeed`` says.
    """

    kind = "mbox"

    def __init__(
        self,
        home: Home,
        mailbox: str,
        path: Path,
        *,
        poll: float = 30.0,
        settle: float = SETTLE_SECONDS,
    ) -> None:
        """Touches no disk. ``poll`` bounds each wait, in seconds; the rest is as ``MboxFeed`` takes it."""
        self.path = path.expanduser().resolve()
        self.name = feed_name(mailbox, self.path)
        self._open = partial(MboxFeed, home, mailbox, self.path, settle=settle)
        # The folder, as the file may come later, or be replaced by another of its name.
        self._watch = Watch([self.path.parent], poll, lambda _, changed: changed == self.path)
        self._read: tuple[int, ...] | None = None
        self._last = 0

    @property
    def source(self) -> str:
        return str(self.path)

    def items(self, after: int) -> Iterator[Handed]:
        """As the contract says; ``SourceAway`` while there is no file. An unchanged file is not opened again."""
        signature = self._signature()
        if signature == self._read and after >= self._last:
            return
        self._read, self._last = None, after
        for item in self._open().items(after):
            self._last = item.number
            yield item
        self._read = signature

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """As the contract says, and never longer than ``poll``; a file that is not there is waited for."""
        self._watch.wait(seconds, stop)

    def close(self) -> None:
        self._watch.close()

    def _signature(self) -> tuple[int, ...]:
        """What changes when the file does: device, inode, size, time of change in nanoseconds."""
        try:
            status = self.path.stat()
        except FileNotFoundError as error:
            raise SourceAway(f"{self.path} is not there", hint="it is read once it is there") from error
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
