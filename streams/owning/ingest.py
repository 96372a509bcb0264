"""Brings archives into a mailbox: each feed is read to its end, in order, through the owner, and nothing is held twice."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pipeline.arrival.windows import due
from pipeline.config.settings import MAILBOX_NAME, Settings
from pipeline.domain import Arrival, Clock, DeadLetter, Item, Parsed, TickKind
from pipeline.errors import NothingToDo, UsageError
from pipeline.home import Home
from pipeline.store import Store
from pipeline.store.rows import FeedRow, MailboxRow
from pipeline.times import utc_now
from streams.feeds.clock import ClockFeed
from streams.feeds.contract import Handed
from streams.feeds.handing import in_batches
from streams.feeds.opening import ArchiveFeed, archive_feed
from streams.owning.batch import Taken
from streams.owning.owner import Owner
from streams.parsers.identified import Identify
from streams.parsers.pool import ParserPool

AnyItem = TypeVar("AnyItem", bound=Handed | Item)

BATCH_MAILS = 2_000
BATCH_BYTES = 16 << 20
OBJECTS_BETWEEN_COLLECTIONS = 100_000

OnProgress = Callable[[int, int, Taken], None]
"""Called with bytes read, bytes in all, and what was taken so far."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A batch: how many mails, and the seconds that reading, parsing and storing them took."""

    mails: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Summary:
    """What an import did; ``open_messages`` stay in the open window ``open_window``."""

    mailbox: str
    read: int
    new: int
    duplicates: int
    quarantined: int
    dead_letters: int
    windows_closed: tuple[int, ...]
    open_window: int
    open_messages: int
    seconds: float
    batches: tuple[Rate, ...]


def choose_mailbox(store: Store, settings: Settings, named: str | None) -> str:
    """The mailbox to import into: the one named, else the only one, else ``main``.

    Raises ``UsageError`` for a name that cannot be one, and when there are several to choose from.
    """
    if named is not None:
        if not MAILBOX_NAME.match(named):
            raise UsageError(
                f"{named!r} is no mailbox name", hint="use a-z, 0-9, '.', '_' and '-', 64 at most, letter or digit first"
            )
        return named
    known = sorted({row.mailbox for row in store.fetch(MailboxRow)} | set(settings.mailboxes))
    if len(known) > 1:
        raise UsageError(f"there are several mailboxes: {', '.join(known)}", hint="name one with --mailbox")
    return known[0] if known else "main"


def choose_clock(owner: Owner, settings: Settings, mailbox: str, asked: Clock | None) -> Clock:
    """The clock of a mailbox; raises ``UsageError`` when another was asked for than the frozen one."""
    frozen = owner.clock(mailbox)
    if frozen is None:
        return asked or settings.mailbox(mailbox).clock
    if asked is not None and asked is not frozen:
        raise UsageError(
            f"mailbox {mailbox} runs by the {frozen} clock, for good, and cannot change to {asked}",
            hint="import into another mailbox with --mailbox",
        )
    return frozen


def import_archives(
    store: Store,
    home: Home,
    settings: Settings,
    paths: Sequence[Path],
    *,
    mailbox: str | None,
    clock: Clock | None,
    on_progress: OnProgress,
) -> Summary:
    """Feeds the archives to their ends, in the order given; what a crash or an earlier import took is not taken again.

    An archive named twice counts once. Raises ``NothingToDo``, before any effect, when all of them are new and empty.
    """
    begin = time.monotonic()
    owner = Owner(store, home, settings, utc_now)
    name = choose_mailbox(store, settings, mailbox)
    timed_by = choose_clock(owner, settings, name, clock)
    feeds = list({feed.name: feed for feed in (archive_feed(home, name, path) for path in paths)}.values())
    _refuse_empty(store, name, feeds)
    total = sum(feed.size for feed in feeds)
    owner.register(name, timed_by, [FeedRow(name, feed.name, feed.kind, feed.source, utc_now()) for feed in feeds])
    owner.seal(name)
    taken = Taken()
    taken.add(close_if_due(owner, home, settings, name, timed_by))
    rates: list[Rate] = []
    before = 0
    identify = Identify.of(store.people, settings.mailbox(name))
    with ParserPool(settings.parse, identify) as parsers, _seldom_collected():
        for feed in feeds:
            started = time.monotonic()
            for batch in batches(parsers.answers(feed.items(after=owner.last_taken(name, feed.name)))):
                part = owner.take(name, batch)
                taken.add(part)
                now = time.monotonic()
                rates.append(Rate(part.read, now - started))
                started = now
                on_progress(before + feed.position, total, taken)
            before += feed.size
    window = owner.window(name)
    return Summary(
        mailbox=name,
        read=taken.read,
        new=taken.new,
        duplicates=taken.duplicates,
        quarantined=taken.quarantined,
        dead_letters=taken.dead_letters,
        windows_closed=tuple(taken.closed),
        open_window=window.idx,
        open_messages=window.n_messages,
        seconds=time.monotonic() - begin,
        batches=tuple(rates),
    )


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """Has Python look for garbage in cycles far less often. A batch is very many objects that live until it is stored,
    and looking through all of them again and again took 6 to 9 % of a small import's time."""
    usual = gc.get_threshold()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def _refuse_empty(store: Store, mailbox: str, feeds: Sequence[ArchiveFeed]) -> None:
    if any(feed.size for feed in feeds):
        return
    known = {row.feed for row in store.fetch(FeedRow, "mailbox = ?", [mailbox])}
    if not any(feed.name in known for feed in feeds):
        named = ", ".join(feed.source for feed in feeds)
        raise NothingToDo(f"there is no mail in {named}: 0 bytes", hint="name an mbox or a Maildir that holds mail")


def close_if_due(owner: Owner, home: Home, settings: Settings, mailbox: str, clock: Clock) -> Taken:
    """Notes and takes what is due by the wall clock (age, cron) before the first mail past it."""
    feed = ClockFeed(home, mailbox)
    last = owner.last_taken(mailbox, feed.name)
    ticks: list[Item] = list(feed.pending(after=last))
    kind = due(owner.window(mailbox), settings.window, clock, utc_now())
    if kind is not None and not ticks:
        ticks.append(feed.note(kind, utc_now(), floor=last))
    return owner.take(mailbox, ticks) if ticks else Taken()


def batches(items: Iterable[AnyItem]) -> Iterator[list[AnyItem]]:
    """Groups items so that a commit is worth its cost and memory stays bounded."""
    return in_batches(items, _weight, most=BATCH_MAILS, most_bytes=BATCH_BYTES)


def _weight(item: Handed | Item) -> int:
    """About how many bytes an item holds until its batch is taken."""
    if isinstance(item, Parsed):
        return len(item.mail.text) + len(item.mail.own_text)
    return len(item.raw) if isinstance(item, Arrival | DeadLetter) else 0


def close_by_hand(store: Store, home: Home, settings: Settings, mailbox: str) -> Taken:
    """Notes a manual closing and takes it; ``closed`` of the answer is empty when the window held no mail."""
    owner = Owner(store, home, settings, utc_now)
    owner.seal(mailbox)
    feed = ClockFeed(home, mailbox)
    last = owner.last_taken(mailbox, feed.name)
    ticks: list[Item] = list(feed.pending(after=last))
    ticks.append(feed.note(TickKind.MANUAL, utc_now(), floor=last))
    return owner.take(mailbox, ticks)
