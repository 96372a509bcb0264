"""What people prefer of two adapters' replies to the same mail, judged in blind order: kept, counted, told to the gate.

Rows are only ever appended. Of each reply and two adapters the newest one counts, whoever judged and whichever stood first,
so that a change of mind is one. A tie, and two replies that are both bad, are no preference: they are counted, and the win
rate is that among decided pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pipeline.config.settings import GateSettings, Settings
from pipeline.intervals import proportion_interval
from pipeline.runs.harms import Figure
from pipeline.runs.requests import RunRequest, RunResult
from pipeline.store import Store
from pipeline.store.rows import SpotRow
from registry.evidence import base_name

Said = Literal["first", "second", "tie", "both_bad"]

RULE = "spot_check"


@dataclass(frozen=True, slots=True)
class Judged:
    """One verdict on two replies, as they were shown."""

    mailbox: str
    message_key: str
    thread_id: str
    shown_first: str
    shown_second: str
    verdict: Said
    judge: str


@dataclass(frozen=True, slots=True)
class Preference:
    """How the replies of ``adapter_id`` fared beside those of ``against``. ``win_rate`` is the share of decided pairs in
    which its own was preferred, with 95 % bounds by thread, all None where no pair was decided; ``few`` marks one that
    rests on few threads."""

    mailbox: str
    adapter_id: str
    against: str
    judged: int
    won: int
    lost: int
    tied: int
    both_bad: int
    threads: int
    win_rate: float | None
    low: float | None
    high: float | None
    few: bool


def note(store: Store, judged: Judged, now: datetime) -> None:
    """Keeps a verdict."""
    told = (judged.mailbox, judged.message_key, judged.shown_first, judged.shown_second, judged.verdict, now.isoformat())
    store.append(
        [
            SpotRow(
                hashlib.sha256("\0".join(told).encode()).hexdigest()[:32],
                judged.mailbox,
                judged.message_key,
                judged.thread_id,
                judged.shown_first,
                judged.shown_second,
                judged.verdict,
                judged.judge,
                now,
            )
        ]
    )


def standing(store: Store, mailbox: str, one: str, other: str) -> list[SpotRow]:
    """The rows on two adapters that count, one a reply."""
    pair = "(shown_first = ? AND shown_second = ?)"
    rows = store.fetch(SpotRow, f"mailbox = ? AND ({pair} OR {pair})", [mailbox, one, other, other, one])
    return list({row.message_key: row for row in rows}.values())


def preferences(store: Store, mailbox: str | None = None) -> list[Preference]:
    """All pairs that were ever judged, the one judged last first; the adapter that was made later is the one told of."""
    rows = store.fetch(SpotRow, "? IS NULL OR mailbox = ?", [mailbox, mailbox])
    made = {str(name): at for name, at in store.query("SELECT adapter_id, created_at FROM adapters")}
    pairs: dict[tuple[str, str, str], None] = {}
    for row in reversed(rows):
        older, newer = sorted((row.shown_first, row.shown_second), key=lambda name: (name in made, made.get(name), name))
        pairs.setdefault((row.mailbox, newer, older))
    return [preference(standing(store, *pair), *pair) for pair in pairs]


def preference(rows: Sequence[SpotRow], mailbox: str, adapter_id: str, against: str) -> Preference:
    """Counts rows of :func:`standing`."""
    preferred = [_preferred(row) for row in rows]
    won = [name == adapter_id for name in preferred if name is not None]
    threads = [row.thread_id for row, name in zip(rows, preferred, strict=True) if name is not None]
    interval = proportion_interval(won, threads)
    return Preference(
        mailbox=mailbox,
        adapter_id=adapter_id,
        against=against,
        judged=len(rows),
        won=sum(won),
        lost=len(won) - sum(won),
        tied=sum(row.verdict == "tie" for row in rows),
        both_bad=sum(row.verdict == "both_bad" for row in rows),
        threads=len(set(threads)),
        win_rate=None if interval is None else interval.value,
        low=None if interval is None else interval.low,
        high=None if interval is None else interval.high,
        few=interval is not None and interval.few,
    )


def spot_figure(store: Store, mailbox: str, challenger: str, champion: str, gate: GateSettings) -> Figure:
    """For the gate: the share of decided pairs in which the champion's reply was preferred, with one-sided bounds by
    thread, of as many pairs as were judged."""
    rows = standing(store, mailbox, challenger, champion)
    if not rows:
        return Figure(RULE, None, reason=f"nobody judged its replies beside those of {champion}")
    decided = [row for row in rows if _preferred(row) is not None]
    lost = [_preferred(row) == champion for row in decided]
    found = proportion_interval(lost, [row.thread_id for row in decided], confidence=2 * gate.confidence - 1)
    if found is None:
        return Figure(RULE, None, n=len(rows), reason=f"neither reply was preferred in any of {len(rows)} judged pairs")
    return Figure(RULE, found.value, found.low, found.high, len(rows))


def spot_check_figures(store: Store, request: RunRequest, result: RunResult, settings: Settings) -> Iterable[Figure]:
    """What was judged of a run's adapter by the time that its verdict falls."""
    champion = request.champion.adapter_id if request.champion else base_name(request)
    return [spot_figure(store, request.mailbox, result.adapter_id, champion, settings.gate)]


def _preferred(row: SpotRow) -> str | None:
    return {"first": row.shown_first, "second": row.shown_second}.get(row.verdict)
