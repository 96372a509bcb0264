"""What a mailbox's mail looks like, window by window and ever, and what changed from one window to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from pipeline.store import Store

EVER = -1
"""Stands for all windows in the results of queries."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Mail of one window, or of all. Counts are of mails unless said otherwise; lengths are tokens by the store's ruler.

    ``threads`` have mail here and ``new_threads`` began here; ``new_senders`` wrote for the first time. Chunks are counted
    by quality tier (``person`` to ``quoted``) and by length (``short`` to ``verylong``), and are there once the window has
    closed. ``repeats`` are arrivals of a mail of this window that was there already. ``excluded`` threads and chunks left
    training and evaluation because of mail of this window.
    """

    mails: int = 0
    train: int = 0
    val: int = 0
    test: int = 0
    quarantine: int = 0
    threads: int = 0
    new_threads: int = 0
    senders: int = 0
    new_senders: int = 0
    from_new_senders: int = 0
    tokens: int = 0
    median_tokens: int = 0
    p95_tokens: int = 0
    longest_tokens: int = 0
    without_own_words: int = 0
    damaged: int = 0
    chunks: int = 0
    person: int = 0
    bulk: int = 0
    auto: int = 0
    quoted: int = 0
    short: int = 0
    medium: int = 0
    long: int = 0
    verylong: int = 0
    repeats: int = 0
    excluded: int = 0


NAMES = tuple(field.name for field in fields(Figures))


@dataclass(frozen=True, slots=True)
class WindowReport:
    """A window and, by figure, what changed against the window before; ``closed_at`` is None while it is open."""

    window_idx: int
    opened_at: datetime
    closed_at: datetime | None
    reason: str
    figures: Figures
    change: dict[str, int] | None


@dataclass(frozen=True, slots=True)
class DataReport:
    """A mailbox: every window, all of them together, and the mails that could not be read at all."""

    mailbox: str
    windows: tuple[WindowReport, ...]
    ever: Figures
    dead_letters: int


def data_report(store: Store, mailbox: str) -> DataReport:
    """Reads the store, in a few grouped queries whatever the number of windows."""
    counted: dict[int, dict[str, int]] = {}
    for names, sql in _QUERIES:
        for window_idx, *values in store.query(sql, [mailbox]):
            counted.setdefault(window_idx, {}).update(zip(names.split(), map(int, values), strict=True))
    found = {window_idx: Figures(**values) for window_idx, values in counted.items()}
    windows = store.query(
        "SELECT window_idx, opened_at, closed_at, coalesce(reason, '') FROM windows WHERE mailbox = ? ORDER BY window_idx",
        [mailbox],
    )
    dead = store.scalar("SELECT count(*) FROM dead_letter_rows WHERE mailbox = ?", [mailbox])
    return DataReport(mailbox, tuple(_reports(windows, found)), found.get(EVER, Figures()), int(dead))


def _reports(windows: Sequence[tuple[Any, ...]], found: dict[int, Figures]) -> list[WindowReport]:
    reports: list[WindowReport] = []
    for window_idx, opened_at, closed_at, reason in windows:
        figures = found.get(window_idx, Figures())
        change = None
        if reports:
            before = reports[-1].figures
            change = {name: getattr(figures, name) - getattr(before, name) for name in NAMES}
        reports.append(WindowReport(window_idx, opened_at, closed_at, reason, figures, change))
    return reports


_GROUPED = f"coalesce(window_idx, {EVER}) AS window_idx"
_SETS = "GROUP BY GROUPING SETS ((window_idx), ())"

# Figures, and a query that gives them per window.
_QUERIES: tuple[tuple[str, str], ...] = (
    (
        "mails train val test quarantine threads senders tokens median_tokens p95_tokens longest_tokens "
        "without_own_words damaged",
        f"""
    SELECT {_GROUPED}, count(*), count(*) FILTER (split = 'train'), count(*) FILTER (split = 'val'),
           count(*) FILTER (split = 'test'), count(*) FILTER (split = 'quarantine'), count(DISTINCT thread_id),
           count(DISTINCT sender_key), coalesce(sum(n_tokens), 0), coalesce(quantile_disc(n_tokens, 0.5), 0),
           coalesce(quantile_disc(n_tokens, 0.95), 0), coalesce(max(n_tokens), 0), count(*) FILTER (own_sha IS NULL),
           count(*) FILTER (len(defects) > 0)
    FROM message_rows WHERE mailbox = $1 {_SETS}
    """,
    ),
    (
        "new_threads",
        f"""
    SELECT coalesce(first_window, {EVER}), count(*) FROM thread_rows WHERE mailbox = $1
    GROUP BY GROUPING SETS ((first_window), ())
    """,
    ),
    (
        "new_senders from_new_senders",
        f"""
    WITH first AS (
        SELECT sender_key, min(window_idx) AS window_idx FROM message_rows
        WHERE mailbox = $1 AND sender_key IS NOT NULL GROUP BY sender_key
    )
    SELECT {_GROUPED}, count(DISTINCT sender_key), count(*)
    FROM message_rows JOIN first USING (sender_key, window_idx) WHERE mailbox = $1 {_SETS}
    """,
    ),
    (
        "chunks person bulk auto quoted short medium long verylong",
        f"""
    SELECT {_GROUPED}, count(*), count(*) FILTER (tier = 'person'), count(*) FILTER (tier = 'bulk'),
           count(*) FILTER (tier = 'auto'), count(*) FILTER (tier = 'quoted'), count(*) FILTER (bucket = 'short'),
           count(*) FILTER (bucket = 'medium'), count(*) FILTER (bucket = 'long'), count(*) FILTER (bucket = 'verylong')
    FROM chunk_rows WHERE mailbox = $1 AND tier <> 'canary' {_SETS}
    """,
    ),
    (
        "repeats",
        f"""
    SELECT {_GROUPED}, count(*) FROM duplicate_rows AS d JOIN message_rows AS m USING (mailbox, message_key)
    WHERE mailbox = $1 {_SETS}
    """,
    ),
    (
        "excluded",
        f"""
    SELECT coalesce(since_window, {EVER}), count(DISTINCT (thread_id, chunk_id)) FROM exclusion_rows
    WHERE mailbox = $1 GROUP BY GROUPING SETS ((since_window), ())
    """,
    ),
)
