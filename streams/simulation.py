"""An archive replayed as if live: its mails are delivered one by one, in the rhythm of their Date headers but faster, into
a Maildir that a real daemon follows, retrains included."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.arrival.windows import OpenWindow, on_mail
from pipeline.config.feed_settings import MaildirFeedSettings
from pipeline.config.settings import MailboxSettings, Settings, WindowSettings
from pipeline.domain import Arrival, Clock
from pipeline.errors import MailtideError
from pipeline.home import Home, private_dir
from pipeline.parsing.mail import parse_mail
from pipeline.store import Store
from streams.daemon.board import DaemonState
from streams.daemon.running import Daemon
from streams.feeds.opening import archive_feed

MAILBOX = "main"
INBOX = "simulated-inbox"
NO_CLOSING = WindowSettings(count=None, age=None)
LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Delivery:
    """A mail of the archive, the archive's time at which it comes, and the seconds of that time since the one before."""

    raw: bytes
    at: datetime
    after: float


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a simulation is: mails delivered, the archive's time, and how the daemon is doing."""

    delivered: int
    share: float
    at: datetime | None
    state: DaemonState


@dataclass(frozen=True, slots=True)
class SimulatedWindow:
    """What became of one window. ``run_id`` and ``status`` are of the last run that learned it as new, None without one."""

    window_idx: int
    opened_at: datetime
    closed_at: datetime | None
    reason: str | None
    n_messages: int
    n_chunks: int | None
    run_id: str | None
    status: str | None


def simulated(settings: Settings, home: Home) -> Settings:
    """The settings of a simulation: one mailbox on the header clock, fed by the inbox in the home, retrained by itself."""
    feed = MaildirFeedSettings(kind="maildir", path=str(home.root / INBOX), poll=1.0)
    mailbox = settings.mailbox(MAILBOX).model_copy(update={"feeds": (feed,), "clock": Clock.HEADER})
    return settings.model_copy(update={"mailboxes": {MAILBOX: MailboxSettings(**dict(mailbox))}, "auto_retrain": True})


def simulate(
    home: Home, settings: Settings, archive: Path, speed: float, on_progress: Callable[[Progress], None]
) -> list[SimulatedWindow]:
    """Delivers the archive into a new home made with :func:`simulated` settings, ``speed`` times as fast as it came (0: as
    fast as it goes), and waits until everything is read, trained and decided.

    Raises ``FeedError`` for what is no archive, and whatever ends the daemon.
    """
    inbox = home.root / INBOX
    for folder in ("tmp", "new", "cur"):
        private_dir(inbox / folder)
    daemon = Daemon(home, settings)
    failure: list[BaseException] = []

    def follow() -> None:
        try:
            daemon.run()
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=follow, name="daemon")
    pause = threading.Event()
    delivered = 0
    at = None
    thread.start()
    try:
        for delivery, share in deliveries(archive):
            end = delivery.after / speed if speed else 0.0
            while end > 0 and thread.is_alive():
                pause.wait(min(end, LOOK_SECONDS))
                end -= LOOK_SECONDS
                on_progress(Progress(delivered, share, at, daemon.state))
            if not thread.is_alive():
                break
            deliver(inbox, delivered, delivery)
            delivered, at = delivered + 1, delivery.at
            on_progress(Progress(delivered, share, at, daemon.state))
        while thread.is_alive() and sum(feed.read for feed in daemon.state.feeds) < delivered:
            pause.wait(LOOK_SECONDS)
            on_progress(Progress(delivered, 1.0, at, daemon.state))
        daemon.finish()
        while thread.is_alive():
            thread.join(LOOK_SECONDS)
            on_progress(Progress(delivered, 1.0, at, daemon.state))
    finally:
        daemon.stop()
        thread.join()
    if failure:
        raise failure[0]
    with Store.open(home, None, None) as store:
        return windows_of(store)


def deliveries(archive: Path) -> Iterator[tuple[Delivery, float]]:
    """The mails of an archive in its order, each with the share of the archive's bytes that it ends.

    Time follows the Date headers as a mailbox on the header clock does, so that a wrong date neither hurries nor halts it.
    """
    with TemporaryDirectory() as folder:
        feed = archive_feed(Home(Path(folder)), MAILBOX, archive)
        window = OpenWindow(idx=1)
        before: datetime | None = None
        read = 0
        for item in feed.items(after=0):
            if not isinstance(item, Arrival):
                continue
            date = parse_mail(item.raw).date
            window = on_mail(window, NO_CLOSING, Clock.HEADER, at=item.received_at, date=date, n_tokens=0).window
            at = window.clock_at or item.received_at
            after = max(0.0, (at - before).total_seconds()) if before else 0.0
            before = at
            read += len(item.raw)
            yield Delivery(item.raw, at, after), min(1.0, read / feed.size)


def deliver(inbox: Path, number: int, delivery: Delivery) -> None:
    """Puts a mail into a Maildir as a mail server does; its file's time is the archive's."""
    seconds = delivery.at.replace(tzinfo=UTC).timestamp()
    temporary = inbox / "tmp" / f"{int(seconds)}.P{number:09d}.simulated"
    temporary.write_bytes(delivery.raw)
    os.utime(temporary, (seconds, seconds))
    temporary.rename(inbox / "new" / temporary.name)


def windows_of(store: Store) -> list[SimulatedWindow]:
    """The windows of the simulated mailbox, in order, with the run that learned each last."""
    rows = store.query(
        """
        WITH learned AS (
            SELECT unnest(windows) AS window_idx, run_id, status, started_at FROM runs WHERE mailbox = ?
        )
        SELECT w.window_idx, w.opened_at, w.closed_at, w.reason, w.n_messages, w.n_chunks,
               arg_max(l.run_id, l.started_at), arg_max(l.status, l.started_at)
        FROM windows w LEFT JOIN learned l USING (window_idx) WHERE w.mailbox = ?
        GROUP BY ALL ORDER BY w.window_idx
        """,
        [MAILBOX, MAILBOX],
    )
    return [SimulatedWindow(*row) for row in rows]


def require_new(home: Home) -> None:
    """Raises where something lies already: a simulation begins with nothing."""
    if home.root.exists() and any(home.root.iterdir()):
        raise MailtideError(f"{home.root} is not empty", hint="name another folder with --keep, or remove it")
