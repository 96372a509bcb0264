"""A Maildir folder as a feed: every mail in ``new`` and ``cur`` once, whatever other programs do to its name meanwhile.

A mail is known by its base name (:mod:`streams.feeds.listing`), which is also its cursor. Nothing is changed, renamed or
marked. Mails are handed on in the order of delivery, a pass at a time; what was noted is found again by its base name,
wherever it lies by then, and where it does not lie any more a dead letter takes its number.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pipeline.domain import TickKind
from pipeline.errors import FeedError, NotMail
from pipeline.home import Home
from pipeline.times import utc_now
from streams.feeds.contract import Handed
from streams.feeds.handing import (
    BATCH_BYTES,
    BATCH_MAILS,
    KEPT_OF_LONGER,
    MAX_MAIL,
    Origin,
    in_batches,
    note_of,
    sha256,
)
from streams.feeds.listing import FOLDERS, Listing, delivered, stamp
from streams.feeds.naming import feed_name, path_text
from streams.feeds.numbering import EPOCH, Note, Noted, Numbering
from streams.feeds.watching import ADDED, DELETED, Watch

TRIES = 10
STILL_SECONDS = 2.0
"""A folder's time of change tells of every change only when it is older than the clock of its file system is coarse."""
FIRST_YEAR = 1980
"""A file time before it comes from a tool that lost the times, not from a delivery."""


@dataclass(frozen=True, slots=True)
class _Mail:
    """What a file holds: the bytes that are kept, how many there are, and when it was delivered."""

    raw: bytes
    length: int
    at: datetime


class _Unreadable(FeedError):
    """One mail that cannot be read just now; the others can."""


class MaildirFeed:
    """One Maildir folder of a mailbox; its sub-folders (``.Sent``) are feeds of their own.

    ``position`` of ``size`` bytes have been read, for a progress bar; ``size`` is 0 until ``measure`` was called.
    """

    kind = "maildir"

    def __init__(
        self,
        home: Home,
        mailbox: str,
        path: Path,
        feed: str | None = None,
        *,
        poll: float = 30.0,
        max_mail: int = MAX_MAIL,
    ) -> None:
        """Touches no disk. ``feed`` names the feed; by default mailbox and path do. ``poll`` bounds each wait, in seconds;
        of a mail longer than ``max_mail`` bytes only the beginning is handed on, in a dead letter."""
        self.path = path.expanduser().resolve()
        self.name = feed or feed_name(mailbox, self.path)
        self.size = 0
        self.position = 0
        self._origin = Origin(mailbox, self.name)
        self._home = home
        self._max_mail = max_mail
        self._kept = min(KEPT_OF_LONGER, max_mail)
        self._watch = Watch([self.path / folder for folder in FOLDERS], poll, _is_news)
        self._listed: tuple[tuple[int, int, int], ...] | None = None

    @property
    def source(self) -> str:
        return path_text(self.path)

    def measure(self) -> None:
        """Adds up the bytes of all mails as ``size``; raises ``FeedError`` when the path is no Maildir."""
        self._check()
        size = 0
        for folder in FOLDERS:
            with os.scandir(self.path / folder) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):  # moved meanwhile
                        size += entry.stat().st_size if entry.is_file() else 0
        self.size = size

    def items(self, after: int) -> Iterator[Handed]:
        """As the contract says. A mail that cannot be read (no permission) is left for a later pass, and this one ends with
        a ``FeedError`` that names it; ``SourceAway`` when the folder is gone that was there before."""
        self.position = 0
        with Numbering(self._home, self.name) as numbering:
            numbering.index_cursors()
            last = numbering.last()
            if last is None:
                self._check()
            before = stamp(self.path)
            behind = last is not None and last.number > after
            if behind or before != self._listed:
                self._listed = None
                with _listing_errors(), closing(Listing(self.path, None if behind else numbering.known)) as listing:
                    for noted in numbering.after(after):
                        yield self._again(listing, noted)
                    yield from self._new(listing, numbering, after)
            if _is_still(before):
                self._listed = before
            self.position = self.size
            last = numbering.last()
            if last is None or last.note.kind != TickKind.CAUGHT_UP:
                (tick,) = numbering.note([Note(TickKind.CAUGHT_UP.value, "", "", utc_now())], floor=after)
                yield self._origin.tick(tick)

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """As the contract says, and never longer than ``poll``; a folder that is away is waited for."""
        self._watch.wait(seconds, stop)

    def close(self) -> None:
        self._watch.close()

    def _new(self, listing: Listing, numbering: Numbering, floor: int) -> Iterator[Handed]:
        """Notes and hands on what no note knows, a batch at a time; raises at its end when mails could not be read."""
        failures: list[_Unreadable] = []
        for page in listing.in_order():
            known = numbering.known(page)
            mails = self._mails(listing, [base for base in page if base not in known], failures)
            for batch in in_batches(mails, lambda mail: len(mail[1].raw), most=BATCH_MAILS, most_bytes=BATCH_BYTES):
                yield from self._hand_on(numbering, batch, floor)
        if failures:
            raise failures[0]

    def _mails(self, listing: Listing, bases: Sequence[str], failures: list[_Unreadable]) -> Iterator[tuple[str, _Mail]]:
        """The mails that are still there, one by one; the first that cannot be read is told in ``failures``."""
        for base in bases:
            try:
                mail = self._fetch(listing, base)
            except _Unreadable as error:
                if not failures:
                    failures.append(error)
                continue
            if mail is not None:
                yield base, mail

    def _hand_on(self, numbering: Numbering, batch: list[tuple[str, _Mail]], floor: int) -> Iterator[Handed]:
        notes = [note_of(base, mail.raw, mail.at, length=mail.length, limit=self._max_mail) for base, mail in batch]
        for noted, (_, mail) in zip(numbering.note(notes, floor=floor), batch, strict=True):
            self.position += mail.length
            yield self._handed(noted, mail)

    def _again(self, listing: Listing, noted: Noted) -> Handed:
        """A noted item, read once more under the name that its file has by now."""
        if not noted.note.digest:
            return self._origin.tick(noted)
        mail = self._fetch(listing, noted.note.cursor)
        if mail is None:
            return self._origin.dead(
                noted, "the mail was deleted or moved away after it was numbered and before it was taken", b""
            )
        if sha256(mail.raw) != noted.note.digest:
            return self._origin.dead(
                noted, "the mail was changed after it was numbered and before it was taken; kept as it is now", mail.raw
            )
        return self._handed(noted, mail)

    def _handed(self, noted: Noted, mail: _Mail) -> Handed:
        return self._origin.mail_or_beginning(noted, mail.raw, mail.length, self._max_mail)

    def _fetch(self, listing: Listing, base: str) -> _Mail | None:
        """A mail by its base name, whatever it is called by now; None when it is gone.

        One listing may miss what is renamed while it is made, so gone is only what two did not see.
        """
        for _ in range(TRIES):
            place = listing.place(base)
            if place is not None:
                try:
                    return self._read(place)
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
                        raise _Unreadable(
                            f"{os.fsdecode(place)} cannot be read: {error.strerror}",
                            hint="let this user read it; the other mails were read",
                        ) from error
            elif listing.readings > 1:
                return None
            listing.read()
        raise _Unreadable(f"{base} in {self.path} is renamed faster than it can be read", hint="it is tried again")

    def _read(self, place: bytes) -> _Mail:
        with open(place, "rb", buffering=0) as file:  # noqa: PTH123 - the name may be no text
            status = os.fstat(file.fileno())
            raw = file.readall() if status.st_size <= self._max_mail else file.read(self._kept)
        length = max(len(raw), status.st_size)
        return _Mail(raw if length <= self._max_mail else raw[: self._kept], length, self._received_at(place, status))

    def _received_at(self, place: bytes, status: os.stat_result) -> datetime:
        """The file's time, which a rename does not change; the time in its name, then now, where it has none."""
        at = _time(status.st_mtime_ns // 1_000)
        if at is None:
            said = delivered(os.path.basename(place))  # noqa: PTH119 - the name may be no text
            at = _time(said) if said is not None else None
        return at or utc_now()

    def _check(self) -> None:
        """Raises ``FeedError`` unless the path is a Maildir folder."""
        if not self.path.exists():
            raise FeedError(f"there is no Maildir at {self.path}", hint="check the path")
        if not self.path.is_dir():
            raise NotMail(f"{self.path} is no folder, so no Maildir", hint="check the path, or read it as an mbox")
        if not is_maildir(self.path):
            inside = sorted(each.name for each in self.path.iterdir() if is_maildir(each))[:5]
            hint = f"name one of the folders in it: {', '.join(inside)}" if inside else "a Maildir holds both new and cur"
            raise NotMail(
                f"{self.path} is a folder, but no Maildir", hint=f"{hint}; mbox files are named each, as in *.mbox"
            )


@contextmanager
def _listing_errors() -> Iterator[None]:
    """A listing that cannot be kept is the disk's fault, where temporary files lie."""
    try:
        yield
    except sqlite3.Error as error:
        raise FeedError(
            f"no listing of a Maildir can be kept: {error}", hint="make room for temporary files, or set SQLITE_TMPDIR"
        ) from error


def is_maildir(path: Path) -> bool:
    """Whether a folder holds ``new`` and ``cur``."""
    return all((path / folder).is_dir() for folder in FOLDERS)


def _is_news(kind: int, path: Path) -> bool:
    """A file that came, also under a new name; a folder that went."""
    return kind == ADDED or (kind == DELETED and path.name in FOLDERS)


def _is_still(listed: tuple[tuple[int, int, int], ...]) -> bool:
    return all(changed_ns < (time.time() - STILL_SECONDS) * 1e9 for _, _, changed_ns in listed)


def _time(microseconds: int) -> datetime | None:
    try:
        at = EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return None
    return at if at.year >= FIRST_YEAR else None
