"""One connection to an IMAP server, logged in, with one folder open read-only.

EXAMINE and BODY.PEEK[] alone: no command here can change anything on the server, not even a flag.
"""

from __future__ import annotations

import selectors
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipeline.config.feed_settings import ImapFeedSettings
from pipeline.errors import FeedError, SourceAway
from streams.feeds.imap_errors import Refused, answering
from streams.feeds.imap_login import connect, server_of, shut

SEARCHED = 80_000
"""UIDs asked for in one search: imaplib refuses an answer of more than a million bytes in a line."""
LOOK_SECONDS = 0.5
NAMED_FOLDERS = 8


@dataclass(frozen=True, slots=True)
class Opened:
    """A folder as EXAMINE shows it. ``uidnext`` is above every UID in it; None where the server does not tell."""

    uidvalidity: int
    uidnext: int | None
    exists: int


@dataclass(frozen=True, slots=True)
class Listed:
    """A mail's size in bytes, as the server counts, and when it came there (naive UTC)."""

    size: int
    received_at: datetime | None


class Session:
    """Every method but ``close`` raises ``SourceAway`` when the server ends the connection or is quiet for too long."""

    def __init__(self, settings: ImapFeedSettings, folder: str) -> None:
        """Connects and logs in; raises ``SourceAway`` for what may pass, ``FeedError`` with the fix for what will not."""
        self._folder = folder
        self._settings = settings
        self._server = server_of(settings)
        self._closed = False
        self._client = connect(settings)
        try:
            with self._answering():
                self.can_idle = bool(self._client.has_capability("IDLE"))
        except BaseException:
            self.close()
            raise

    def examine(self) -> Opened:
        """Opens the folder as it now is. Raises ``FeedError``, with folders that exist, when there is none of this name."""
        try:
            with self._answering():
                told = self._client.select_folder(self._folder, readonly=True)
        except Refused as error:
            raise self._no_folder(error) from error
        if not isinstance(told.get(b"UIDVALIDITY"), int):
            raise FeedError(f"{self._server} keeps no UIDs in {self._folder}", hint="copy the mail to a server that does")
        return Opened(told[b"UIDVALIDITY"], told.get(b"UIDNEXT"), int(told.get(b"EXISTS", 0)))

    def uids_after(self, uid: int, opened: Opened) -> Iterator[list[int]]:
        """The UIDs above ``uid`` that were there at ``examine``, in order, in lists of bounded length."""
        if opened.uidnext is None:
            yield self._search(f"{uid + 1}:*", uid)  # the last mail's, however far below the range it is
            return
        last = opened.uidnext - 1
        width = SEARCHED if opened.exists > SEARCHED else last
        for first in range(uid + 1, last + 1, max(width, 1)):
            if found := self._search(f"{first}:{min(first + width - 1, last)}", uid):
                yield found

    def listed(self, uids: Sequence[int]) -> dict[int, Listed]:
        """Sizes and dates of the mails that are still there."""
        answer = self._fetch(uids, ["RFC822.SIZE", "INTERNALDATE"])
        with self._answering():
            return {
                uid: Listed(int(found[b"RFC822.SIZE"]), _naive_utc(found.get(b"INTERNALDATE")))
                for uid, found in answer.items()
                if b"RFC822.SIZE" in found
            }

    def bodies(self, uids: Sequence[int]) -> dict[int, bytes]:
        """The mails that are still there, whole. Raises ``Refused`` when the server does not give one of them."""
        answer = self._fetch(uids, ["BODY.PEEK[]"])
        return {uid: found[b"BODY[]"] or b"" for uid, found in answer.items() if b"BODY[]" in found}

    def beginning(self, uid: int, length: int) -> bytes | None:
        """The first ``length`` bytes of a mail; None when it is gone."""
        found = self._fetch([uid], [f"BODY.PEEK[]<0.{length}>"]).get(uid, {})
        return found[b"BODY[]<0>"] or b"" if b"BODY[]<0>" in found else None

    def has(self, uid: int) -> bool:
        """Whether a mail is there, once the server has told what has gone."""
        with self._answering():
            self._client.noop()
        return uid in self._search(str(uid), 0)

    def idle(self, seconds: float, stop: threading.Event, period: float) -> None:
        """Returns when the server says that there is mail, when ``stop`` is set, or after ``seconds``.

        IDLE is asked for again every ``period`` seconds, as a server ends it after thirty minutes. After ``stop`` the
        connection is good for nothing but to be closed: to wait for its answer could take as long as the server likes.
        """
        end = time.monotonic() + seconds
        while not stop.is_set() and (left := end - time.monotonic()) > 0:
            with self._answering():
                self._client.idle()
                heard = self._listen(min(left, period), stop)
                if stop.is_set():
                    return
                _, told = self._client.idle_done()
            if heard and any(b"EXISTS" in line for line in told):
                return

    def close(self) -> None:
        """Ends the connection without a word. From another thread it also ends what is being waited for in this one."""
        self._closed = True
        shut(self._client)

    def _listen(self, seconds: float, stop: threading.Event) -> bool:
        """Whether the server says something within ``seconds``."""
        if self._holds_more():
            return True
        end = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._client.socket(), selectors.EVENT_READ)
            while not stop.is_set() and (left := end - time.monotonic()) > 0:
                if selector.select(min(left, LOOK_SECONDS)):
                    return True
        return False

    def _holds_more(self) -> bool:
        """Whether a line came together with the last one that was read: no socket tells of what lies in a buffer."""
        connection = self._client.socket()
        connection.setblocking(False)
        try:
            return bool(self._client._imap.file.peek(1))
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        finally:
            connection.settimeout(self._settings.timeout)

    def _search(self, uids: str, above: int) -> list[int]:
        with self._answering():
            return sorted({int(uid) for uid in self._client.search(["UID", uids]) if uid > above})

    def _fetch(self, uids: Sequence[int], what: list[str]) -> dict[int, dict[bytes, Any]]:
        with self._answering():
            found: dict[int, dict[bytes, Any]] = self._client.fetch(uids, what)
        return found

    def _no_folder(self, refused: Refused) -> FeedError:
        with self._answering():
            names = sorted(str(name) for _, _, name in self._client.list_folders())
        if self._folder in names:
            return FeedError(f"{self._server} does not open {self._folder}: {refused.said}", hint="ask who runs it")
        some = ", ".join(names[:NAMED_FOLDERS]) + (", ..." if len(names) > NAMED_FOLDERS else "")
        return FeedError(
            f"{self._settings.user} has no folder {self._folder} on {self._server}", hint=f"there are: {some or 'none'}"
        )

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            with answering(self._server, self._settings.timeout):
                yield
        except FeedError as error:
            if self._closed:  # from another thread: whatever that broke here
                raise SourceAway(
                    f"the connection to {self._server} was closed", hint="it is made anew when needed"
                ) from error
            raise


def _naive_utc(date: datetime | None) -> datetime | None:
    """None for a date that cannot be, or is of the epoch's year, which stands for none."""
    if date is None or date.tzinfo is None or date.year <= 1970:
        return None
    try:
        return date.astimezone(UTC).replace(tzinfo=None)
    except (OverflowError, ValueError):
        return None
