"""The log of a mailbox as its windows saw it: mails in the order of arrival, and the marks that came between them.

Read from the store alone. What a feed noted without effect is not in the store, so two kinds of marks are left out: a
closing by hand that found no mail, and looks of the owner's clock, which a replay makes itself before each mail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pipeline.domain import Clock, Split, Tick, TickKind
from pipeline.store import Store
from pipeline.store.rows import ClosingRow, ExclusionRow, FeedRow, MailboxRow


@dataclass(frozen=True, slots=True)
class Mail:
    """A stored message, as far as windows and splits are concerned. ``at`` is when the owner took it (arrival clock) or
    its file's time (header clock); ``window_idx`` is the window that it is in."""

    key: str
    thread_id: str
    split: Split
    window_idx: int
    n_tokens: int
    at: datetime
    date: datetime | None


@dataclass(frozen=True, slots=True)
class Mark:
    """A tick that came after ``position`` mails; ``feeds`` are those that the mailbox had then."""

    position: int
    tick: Tick
    feeds: frozenset[str]


@dataclass(frozen=True, slots=True)
class Closed:
    """A stored closing, as a replay must give it again."""

    idx: int
    reason: str
    n_messages: int


@dataclass(frozen=True, slots=True)
class Log:
    """Everything that decided a mailbox's windows. ``ended_at`` is when the owner last took something. ``excluded`` are
    the threads that no run trains on any more."""

    mailbox: str
    clock: Clock
    mails: tuple[Mail, ...]
    marks: tuple[Mark, ...]
    closed: tuple[Closed, ...]
    ended_at: datetime | None
    excluded: frozenset[str]


_TAKEN_AT = """
message_rows AS m ASOF LEFT JOIN taken AS t ON m.mailbox = t.mailbox AND m.feed = t.feed AND m.number <= t.last_number
"""
"""Each message with the batch that it was taken in: the first of its feed that reached its number."""

_MAILS = f"""
SELECT m.message_key, m.thread_id, m.split, m.window_idx, m.n_tokens, coalesce(t."at", m.received_at), m.received_at, m.date
FROM {_TAKEN_AT} WHERE m.mailbox = ? ORDER BY m.arrival_ordinal
"""

_CAUGHT_UP = f"""
WITH batches AS (
    SELECT feed, last_number, "at", last_number - lag(last_number, 1, 0) OVER (PARTITION BY feed ORDER BY rowid) AS items
    FROM taken WHERE mailbox = ? AND feed IN (SELECT feed FROM feed_rows WHERE mailbox = ?)
), mails AS (
    SELECT t.feed, t.last_number, count(*) AS n FROM {_TAKEN_AT} WHERE m.mailbox = ? GROUP BY ALL
), aside AS (
    SELECT feed, "at", count(*) AS n
    FROM (
        SELECT feed, "at" FROM duplicate_rows WHERE mailbox = ?
        UNION ALL SELECT feed, "at" FROM dead_letter_rows WHERE mailbox = ?
    ) GROUP BY ALL
), ends AS (
    SELECT "at", max(next_ordinal) AS position FROM window_states WHERE mailbox = ? GROUP BY "at"
)
SELECT ends.position, batches.feed, batches.last_number, batches."at"
FROM batches JOIN ends USING ("at") LEFT JOIN mails USING (feed, last_number) LEFT JOIN aside USING (feed, "at")
WHERE batches.items > coalesce(mails.n, 0) + coalesce(aside.n, 0)
ORDER BY ends.position, batches."at"
"""
"""Batches of a feed that hold an item which is neither a mail nor set aside: the feed said that it had caught up. The
mark is put at the batch's end, where a feed that is read to its end says so."""


def read_log(store: Store, mailbox: str) -> Log:
    """The log of a mailbox that the store knows."""
    (row,) = store.fetch(MailboxRow, "mailbox = ?", [mailbox])
    clock = Clock(row.clock)
    rows = store.query(_MAILS, [mailbox])
    closings = store.fetch(ClosingRow, "mailbox = ?", [mailbox], "window_idx")
    feeds = store.fetch(FeedRow, "mailbox = ?", [mailbox])
    excluded = store.fetch(ExclusionRow, "mailbox = ? AND chunk_id IS NULL", [mailbox])
    marks = [*_caught_up(store, mailbox, feeds), *_by_hand(mailbox, closings, feeds)]
    return Log(
        mailbox=mailbox,
        clock=clock,
        mails=tuple(
            Mail(key, thread_id, Split(split), idx, n_tokens, received_at if clock is Clock.HEADER else taken_at, date)
            for key, thread_id, split, idx, n_tokens, taken_at, received_at, date in rows
        ),
        marks=tuple(sorted(marks, key=lambda mark: (mark.position, mark.tick.at))),
        closed=tuple(Closed(closing.window_idx, closing.reason, closing.n_messages) for closing in closings),
        ended_at=store.scalar('SELECT max("at") FROM taken WHERE mailbox = ?', [mailbox]),
        excluded=frozenset(exclusion.thread_id for exclusion in excluded),
    )


def _caught_up(store: Store, mailbox: str, feeds: Sequence[FeedRow]) -> list[Mark]:
    found = store.query(_CAUGHT_UP, [mailbox] * _CAUGHT_UP.count("?"))
    return [
        Mark(position, Tick(mailbox, feed, number, TickKind.CAUGHT_UP, at), _known_by(feeds, at))
        for position, feed, number, at in found
    ]


def _by_hand(mailbox: str, closings: Sequence[ClosingRow], feeds: Sequence[FeedRow]) -> list[Mark]:
    return [
        Mark(
            closing.last_ordinal + 1,
            Tick(mailbox, f"{mailbox}.clock", 0, TickKind.MANUAL, closing.closed_at),
            _known_by(feeds, closing.closed_at),
        )
        for closing in closings
        if closing.reason == TickKind.MANUAL
    ]


def _known_by(feeds: Sequence[FeedRow], at: datetime) -> frozenset[str]:
    return frozenset(feed.feed for feed in feeds if feed.registered_at <= at)
