"""Folders of an IMAP account as feeds: each mail once, under the same number, however often the connection ends.

A cursor ``UIDVALIDITY:UID`` finds a mail again for as long as the server does not renumber the folder. When it does, the
folder is read from its beginning, and what is stored already counts as duplicates. A mail that was numbered, not yet
taken, and is gone when it is asked for again leaves a dead letter under its number, as no number may be missing.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from urllib.parse import quote

from pipeline.config.feed_settings import ImapFeedSettings
from pipeline.domain import TickKind
from pipeline.errors import SourceAway
from pipeline.home import Home
from pipeline.times import utc_now
from streams.feeds.contract import Handed
from streams.feeds.handing import KEPT_OF_LONGER, MAX_MAIL, Origin, newest_received, sha256
from streams.feeds.imap_errors import Refused
from streams.feeds.imap_fetch import Fetched, Fetcher
from streams.feeds.imap_session import Opened, Session
from streams.feeds.numbering import MAIL, Note, Noted, Numbering

IDLE_PERIOD = 600.0
"""Seconds before IDLE is asked for anew: far below a server's thirty minutes, as routers forget quiet connections."""
PENDING = 500
INCOMPLETE = "incomplete"
USUAL_PORTS = (143, 993)

log = logging.getLogger(__name__)


def imap_feeds(home: Home, mailbox: str, settings: ImapFeedSettings) -> list[ImapFeed]:
    """A feed for each folder of an account; nothing is connected yet."""
    feeds = [ImapFeed(home, mailbox, settings, folder) for folder in settings.folders]
    return list({feed.name: feed for feed in feeds}.values())


@dataclass(frozen=True, slots=True)
class _Place:
    """How far a folder has been read: every mail up to ``uid`` in the numbering ``uidvalidity``."""

    uidvalidity: int
    uid: int

    @classmethod
    def of(cls, state: dict[str, str]) -> _Place | None:
        return cls(int(state["uidvalidity"]), int(state["uid"])) if "uid" in state else None

    def state(self) -> dict[str, str]:
        return {"uidvalidity": str(self.uidvalidity), "uid": str(self.uid)}

    def cursor(self, uid: int | None = None) -> str:
        return f"{self.uidvalidity}:{self.uid if uid is None else uid}"


class ImapFeed:
    """One folder. Its connection stays open between passes; ``close`` may be called from any thread, the rest from one."""

    kind = "imap"

    def __init__(
        self,
        home: Home,
        mailbox: str,
        settings: ImapFeedSettings,
        folder: str,
        *,
        now: Callable[[], datetime] = utc_now,
        max_mail: int = MAX_MAIL,
        idle_period: float = IDLE_PERIOD,
    ) -> None:
        self.folder = folder
        self.name = f"{mailbox}.{_slug(settings, folder)}"
        self.source = _url(settings, folder)
        self._origin = Origin(mailbox, self.name)
        self._home = home
        self._settings = settings
        self._now = now
        self._idle_period = idle_period
        self._idle_refused = 0
        self._session: Session | None = None
        self._fetcher = Fetcher(max_mail, min(KEPT_OF_LONGER, max_mail))

    def items(self, after: int) -> Iterator[Handed]:
        """As :class:`streams.feeds.contract.Feed` says. Mail that comes meanwhile belongs to the pass."""
        try:
            opened = self._opened()
            with Numbering(self._home, self.name) as numbering:
                yield from self._again(numbering, after, opened)
                yield from self._new(numbering, after, opened)
        except GeneratorExit:  # abandoned between two mails, when every answer has been read
            raise
        except BaseException:
            self.close()
            raise

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """As :class:`streams.feeds.contract.LiveFeed` says: by IDLE, or where there is none until the next poll."""
        if stop.is_set():
            return
        session = self._session
        try:
            if not self._settings.idle or self._idle_refused > 1:
                stop.wait(min(seconds, self._settings.poll))
            elif session is None:
                self._opened()  # mail may have come while nobody listened
            elif not session.can_idle:
                stop.wait(min(seconds, self._settings.poll))
            else:
                session.idle(seconds, stop, self._idle_period)
                self._idle_refused = 0
        except Refused as refused:
            self._idle_refused += 1
            log.info("feed %s: %s", self.name, refused.message)
            self.close()
        except BaseException:
            self.close()
            raise
        if stop.is_set():
            self.close()

    def close(self) -> None:
        """Ends the connection, and with it what another thread waits for on it."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _opened(self) -> Opened:
        """The folder as it is now. A connection that ended while nothing was asked of it is replaced without a word."""
        session = self._session
        if session is not None:
            try:
                return session.examine()
            except SourceAway:
                self.close()
        self._session = session = Session(self._settings, self.folder)
        return session.examine()

    def _connected(self) -> Session:
        if self._session is None:
            raise SourceAway(f"feed {self.name} was closed while it read", hint="it goes on where it stood")
        return self._session

    def _again(self, numbering: Numbering, after: int, opened: Opened) -> Iterator[Handed]:
        """What was numbered and not taken, fetched once more."""
        pending = numbering.after(after)
        gone = 0
        while group := deque(islice(pending, PENDING)):
            uids = [uid for noted in group if (uid := _uid(noted.note, opened.uidvalidity)) is not None]
            for batch in self._fetcher.fetched(self._connected(), uids):
                for mail in batch:
                    while _uid(group[0].note, opened.uidvalidity) != mail.uid:
                        gone += bool(group[0].note.digest)
                        yield self._without(group.popleft())
                    yield self._handed(group.popleft(), mail)
            gone += sum(bool(noted.note.digest) for noted in group)
            yield from map(self._without, group)
        if gone:
            log.warning("feed %s: %d mails went from %s before they were taken", self.name, gone, self.folder)

    def _new(self, numbering: Numbering, floor: int, opened: Opened) -> Iterator[Handed]:
        place = self._place(numbering, opened)
        while True:
            start = place
            for uids in self._connected().uids_after(start.uid, opened):
                for batch in self._fetcher.fetched(self._connected(), uids):
                    place = _Place(opened.uidvalidity, batch[-1].uid) if batch else place
                    notes = [self._note(mail, place) for mail in batch]
                    noted = numbering.note(notes, floor=floor, state=place.state())
                    yield from map(self._handed, noted, batch)
            if opened.uidnext is not None and opened.uidnext - 1 > place.uid:
                place = _Place(opened.uidvalidity, opened.uidnext - 1)
                numbering.note([], state=place.state())
            if place == start:
                break
            # What came meanwhile was announced meanwhile: no IDLE would tell of it again.
            opened = self._connected().examine()
            place = self._place(numbering, opened)
        last = numbering.last()
        if last is None or last.note.kind != TickKind.CAUGHT_UP:
            (tick,) = numbering.note([Note(TickKind.CAUGHT_UP.value, place.cursor(), "", self._now())], floor=floor)
            yield self._origin.tick(tick)

    def _place(self, numbering: Numbering, opened: Opened) -> _Place:
        known = _Place.of(numbering.state())
        if known is not None and known.uidvalidity == opened.uidvalidity:
            return known
        place = _Place(opened.uidvalidity, 0)
        if known is not None:
            numbering.note([], state=place.state())
            self._fetcher.forget()
            log.warning(
                "feed %s: the server has renumbered %s (UIDVALIDITY %d, now %d): it is read from its beginning, and mail "
                "that is stored already counts as duplicates",
                self.name,
                self.folder,
                known.uidvalidity,
                opened.uidvalidity,
            )
        return place

    def _note(self, mail: Fetched, place: _Place) -> Note:
        received_at = mail.received_at or newest_received(mail.raw) or self._now()
        return Note(INCOMPLETE if mail.problem else MAIL, place.cursor(mail.uid), sha256(mail.raw), received_at)

    def _handed(self, noted: Noted, mail: Fetched) -> Handed:
        if mail.problem:
            return self._origin.dead(noted, mail.problem, mail.raw)
        # A server may give other bytes than it gave when the mail was noted: the digest is of what is handed on.
        return replace(self._origin.mail(noted, mail.raw), digest=sha256(mail.raw))

    def _without(self, noted: Noted) -> Handed:
        """A tick, or the mark of a mail that is gone."""
        if not noted.note.digest:
            return self._origin.tick(noted)
        reason = f"gone from {self.folder} before it was taken: deleted, moved, or renumbered by the server"
        return self._origin.dead(noted, reason, b"")


def _uid(note: Note, uidvalidity: int) -> int | None:
    """The UID of a noted mail in this numbering; None for a tick and for a mail of another."""
    if not note.digest:
        return None
    validity, uid = note.cursor.split(":")
    return int(uid) if int(validity) == uidvalidity else None


def _slug(settings: ImapFeedSettings, folder: str) -> str:
    """The same for one account however it is reached, so that a change from port 143 to 993 reads nothing again."""
    host = settings.host.lower()
    port = "" if settings.port in USUAL_PORTS else f":{settings.port}"
    digest = sha256("\0".join((host + port, settings.user, folder)).encode())[:8]
    return f"{re.sub(r'[^a-z0-9._-]+', '-', f'{host}-{settings.user}-{folder}'.lower())[:40]}-{digest}"


def _url(settings: ImapFeedSettings, folder: str) -> str:
    scheme = "imaps" if settings.security == "tls" else "imap"
    return f"{scheme}://{quote(settings.user, safe='@')}@{settings.host}:{settings.port}/{quote(folder)}"
