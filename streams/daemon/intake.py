"""Takes items into the store that this process holds, from whichever thread brings them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pipeline.arrival.windows import due
from pipeline.config.settings import Settings
from pipeline.domain import Clock, Item
from pipeline.home import Home
from pipeline.store import Store
from pipeline.store.rows import FeedRow
from pipeline.times import utc_now
from streams.feeds.contract import Feed
from streams.owning.batch import Taken
from streams.owning.held import HeldStore
from streams.owning.ingest import choose_clock, close_if_due
from streams.owning.owner import Owner


class Intake:
    """An owner in a process with several threads, and with commands of other processes that write in between."""

    def __init__(self, held: HeldStore, home: Home, settings: Settings) -> None:
        self._held = held
        self._home = home
        self._settings = settings
        self._owner: Owner | None = None
        self._guests = 0

    def register(self, mailbox: str, feeds: Sequence[Feed]) -> None:
        """Makes the mailbox if it is new, notes its feeds, and writes the shards that a crash left undone."""
        with self._held.writing() as store:
            owner = self._fresh(store)
            clock = choose_clock(owner, self._settings, mailbox, None)
            owner.register(mailbox, clock, [FeedRow(mailbox, one.name, one.kind, one.source, utc_now()) for one in feeds])
            sealed = owner.seal(mailbox)
        if sealed:
            self._held.announce()

    def last_taken(self, mailbox: str, feed: str) -> int:
        """The number up to which a feed's items were taken; 0 before the first."""
        with self._held.writing() as store:
            return self._fresh(store).last_taken(mailbox, feed)

    def take(self, mailbox: str, items: Sequence[Item]) -> Taken:
        """Takes items of one feed in order, durably; returns what became of them."""
        with self._held.writing() as store:
            taken = self._fresh(store).take(mailbox, items)
        if taken.closed:
            self._held.announce()
        return taken

    def close_due(self, mailbox: str, *, pending: bool = False) -> Taken:
        """Closes the mailbox's window if its age or a cron moment is reached. With ``pending``, also by marks that were
        noted and not taken."""
        with self._held.writing() as store:
            owner = self._fresh(store)
            clock = owner.clock(mailbox)
            if clock is not Clock.ARRIVAL:
                return Taken()
            if not pending and due(owner.window(mailbox), self._settings.window, clock, utc_now()) is None:
                return Taken()
            taken = close_if_due(owner, self._home, self._settings, mailbox, clock)
        if taken.closed:
            self._held.announce()
        return taken

    @contextmanager
    def opened(self) -> Iterator[tuple[Store, Owner]]:
        """The store and its owner, for this thread alone."""
        with self._held.writing() as store:
            yield store, self._fresh(store)

    def _fresh(self, store: Store) -> Owner:
        """The owner; another one when somebody else has written since, as it remembers where each mailbox stands."""
        if self._owner is None or self._guests != self._held.guests:
            self._guests = self._held.guests
            self._owner = Owner(store, self._home, self._settings, utc_now)
        return self._owner
