"""The owner of a store: takes numbered items strictly in order, and commits what they become as one.

What an item becomes is decided by pure functions (threads, splits, windows, chunks); the owner looks up what they need
and appends their answers with the numbers taken, in one transaction. A crash before it leaves nothing behind, a crash
after it nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from pipeline.arrival.identity import needs_of
from pipeline.arrival.windows import OpenWindow
from pipeline.chunking.ruler import load_ruler
from pipeline.config.settings import Settings
from pipeline.domain import Clock, Item, Parsed
from pipeline.home import Home
from pipeline.store import Store
from pipeline.store.rows import ExclusionRow, FeedRow, MailboxRow, Row
from streams.owning.batch import Batch, Position, Taken
from streams.owning.sealing import seal, unsealed
from streams.parsers.identified import Identify

if TYPE_CHECKING:
    from streams.owning.copies import NearCopies

FOLDED_BEFORE = 10_000
"""Messages of the windows to be sealed above which the write-ahead logs are folded first: unfolded rows are held in memory
(100 MB at most), and so is much of a large window while it is sealed."""


class Owner:
    """Writes one store. ``now`` gives naive UTC and is asked once per batch."""

    def __init__(self, store: Store, home: Home, settings: Settings, now: Callable[[], datetime]) -> None:
        self._store = store
        self._home = home
        self._settings = settings
        self._now = now
        self._ruler = load_ruler(settings.chunk.ruler)
        self._positions: dict[str, Position] = {}
        self._copies: dict[str, NearCopies] = {}
        self._clocks = {row.mailbox: Clock(row.clock) for row in store.fetch(MailboxRow)}

    def clock(self, mailbox: str) -> Clock | None:
        """The clock frozen for a mailbox; None when the store does not know the mailbox."""
        return self._clocks.get(mailbox)

    def register(self, mailbox: str, clock: Clock, feeds: Sequence[FeedRow]) -> None:
        """Makes the mailbox if it is new, and notes feeds that it did not have; window 0 waits for every one."""
        known = {row.feed for row in self._store.fetch(FeedRow, "mailbox = ?", [mailbox])}
        rows: list[Row] = [row for row in feeds if row.feed not in known]
        if mailbox not in self._clocks:
            rows.append(MailboxRow(mailbox, clock.value, self._now()))
        if rows:
            self._store.append(rows)
        self._clocks.setdefault(mailbox, clock)
        self._positions.pop(mailbox, None)

    def last_taken(self, mailbox: str, feed: str) -> int:
        """The number up to which a feed's items need not be handed on again; 0 before the first."""
        return self._position(mailbox).taken.get(feed, 0)

    def window(self, mailbox: str) -> OpenWindow:
        """The open window of a mailbox."""
        return self._position(mailbox).window

    def take(self, mailbox: str, items: Sequence[Item], extra_rows: Sequence[Row] = ()) -> Taken:
        """Takes items of a registered mailbox in order, and writes the shards of the windows that they close.

        A number already taken is a repeat and no row. ``extra_rows`` are committed with the items' rows, or not at all.
        Raises ``StoreError`` when a number is missing.
        """
        people = self._store.people
        identify = Identify.of(people, self._settings.mailbox(mailbox))
        views = [identify.view(item) if isinstance(item, Parsed) else None for item in items]
        known = self._store.lookup(mailbox, needs_of(view for view in views if view is not None))
        batch = Batch(
            mailbox,
            self._position(mailbox),
            known,
            clock=self._clocks[mailbox],
            settings=self._settings,
            ruler=self._ruler,
            people=people,
            now=self._now(),
        )
        for item, view in zip(items, views, strict=True):
            batch.add(item, view)
        rows, position = batch.finish()
        self._store.append([*rows, *extra_rows])
        self._positions[mailbox] = position
        if batch.taken.closed:
            self.seal(mailbox)
        return batch.taken

    def seal(self, mailbox: str) -> list[int]:
        """Writes every shard that is missing, also those that a crash left undone; returns their windows."""
        closings = unsealed(self._store, mailbox)
        if sum(closing.n_messages for closing in closings) > FOLDED_BEFORE:
            self._store.checkpoint()
        for closing in closings:
            seal(self._store, self._home, self._settings, self._ruler, closing, self._near_copies(mailbox))
        if closings:
            self._store.checkpoint()
        return [closing.window_idx for closing in closings]

    def _near_copies(self, mailbox: str) -> NearCopies:
        from streams.owning.copies import NearCopies  # numpy, which most batches can do without

        found = self._copies.get(mailbox)
        if found is None:
            found = self._copies[mailbox] = NearCopies(self._store, self._home, mailbox)
        return found

    def _position(self, mailbox: str) -> Position:
        position = self._positions.get(mailbox)
        if position is None:
            position = self._positions[mailbox] = self._read_position(mailbox)
        return position

    def _read_position(self, mailbox: str) -> Position:
        states = self._store.query(
            "SELECT next_ordinal, state FROM window_states WHERE mailbox = ? ORDER BY rowid DESC LIMIT 1", [mailbox]
        )
        taken = self._store.query("SELECT feed, max(last_number) FROM taken WHERE mailbox = ? GROUP BY feed", [mailbox])
        excluded = self._store.fetch(ExclusionRow, "mailbox = ? AND chunk_id IS NULL", [mailbox])
        feeds = self._store.fetch(FeedRow, "mailbox = ?", [mailbox])
        return Position(
            next_ordinal=states[0][0] if states else 0,
            window=OpenWindow.from_json(states[0][1]) if states else OpenWindow(),
            taken={feed: last for feed, last in taken},
            feeds=frozenset(row.feed for row in feeds),
            excluded=frozenset(row.thread_id for row in excluded),
        )
