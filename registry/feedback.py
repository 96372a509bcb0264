"""What people say of answers, and how often they overrule an adapter: a thumb down, or a reply corrected.

Rows are only ever appended. Of each answer and user the newest one counts, so that a change of mind is one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pipeline.config.settings import Settings
from pipeline.intervals import Interval, proportion_interval
from pipeline.runs.harms import Figure
from pipeline.runs.requests import RunRequest, RunResult
from pipeline.store import Store
from pipeline.store.rows import FeedbackRow, Row, TextRow

Rating = Literal["up", "down", "corrected"]


@dataclass(frozen=True, slots=True)
class Said:
    """Feedback as it came. ``correction`` is the better reply, with ``corrected`` alone; ``user_key`` a keyed hash, None
    where nobody is named."""

    answer_id: str
    mailbox: str
    adapter_id: str
    rating: Rating
    correction: str | None
    user_key: str | None


@dataclass(frozen=True, slots=True)
class Overrides:
    """How an adapter's answers were taken. ``share`` is that of overruled ones among all that were rated, with 95 % bounds;
    ``users`` counts those who were named."""

    mailbox: str
    adapter_id: str
    rated: int
    up: int
    down: int
    corrected: int
    users: int
    share: float
    low: float
    high: float


def note(store: Store, said: Said, now: datetime) -> bool:
    """Records feedback; False when it says again what was said last of this answer by this user."""
    earlier = store.fetch(FeedbackRow, "answer_id = ? AND user_key IS NOT DISTINCT FROM ?", [said.answer_id, said.user_key])
    sha = None if said.correction is None else hashlib.sha256(said.correction.encode()).hexdigest()
    if earlier and (earlier[-1].rating, earlier[-1].correction_sha) == (said.rating, sha):
        return False
    named = f"{said.answer_id}\0{said.user_key or ''}\0{len(earlier)}"
    rows: list[Row] = [
        FeedbackRow(
            hashlib.sha256(named.encode()).hexdigest()[:32],
            said.answer_id,
            said.mailbox,
            said.adapter_id,
            said.user_key,
            said.rating,
            sha,
            now,
        )
    ]
    if sha is not None and said.correction is not None:
        rows.append(TextRow(sha, said.correction))
    store.append(rows)
    return True


def standing(store: Store, mailbox: str | None = None, adapter_id: str | None = None) -> list[FeedbackRow]:
    """The rows that count, in order of time."""
    rows = store.fetch(
        FeedbackRow,
        "(? IS NULL OR mailbox = ?) AND (? IS NULL OR adapter_id = ?)",
        [mailbox, mailbox, adapter_id, adapter_id],
    )
    newest = {(row.answer_id, row.user_key): row for row in rows}
    return sorted(newest.values(), key=lambda row: row.at)


def overrides(rows: Iterable[FeedbackRow]) -> list[Overrides]:
    """One entry per mailbox and adapter, by name."""
    groups: dict[tuple[str, str], list[FeedbackRow]] = {}
    for row in rows:
        groups.setdefault((row.mailbox, row.adapter_id), []).append(row)
    found = []
    for (mailbox, adapter_id), own in sorted(groups.items()):
        interval = override_share(own)
        assert interval is not None
        counts = {rating: sum(row.rating == rating for row in own) for rating in ("up", "down", "corrected")}
        users = len({row.user_key for row in own if row.user_key is not None})
        found.append(
            Overrides(
                mailbox,
                adapter_id,
                len(own),
                **counts,
                users=users,
                share=interval.value,
                low=interval.low,
                high=interval.high,
            )
        )
    return found


def override_share(rows: Sequence[FeedbackRow], confidence: float = 0.95) -> Interval | None:
    """The share of overruled answers, with bounds on either side; None without feedback.

    Users are clusters: one who answers much is one opinion. Feedback that names nobody is taken as independent, and so is
    all of it where only one user speaks, whose opinion it then is. Wilson's interval at the effective size
    (:func:`pipeline.intervals.proportion_interval`).
    """
    named = {row.user_key for row in rows if row.user_key is not None}
    alone = len(named) < 2 and all(row.user_key is not None for row in rows)
    clusters = [row.feedback_id if alone or row.user_key is None else row.user_key for row in rows]
    return proportion_interval([row.rating != "up" for row in rows], clusters, confidence=confidence)


def feedback_figures(store: Store, request: RunRequest, result: RunResult, settings: Settings) -> Iterable[Figure]:
    """For the gate: by how much the challenger was overruled more often than its champion, with one-sided bounds.

    The bounds combine those of both shares (Newcombe 1998, method 10). A fresh adapter has answered nobody, so the rule is
    mostly absent; it is there for one that was served as ``candidate`` before its verdict.
    """
    confidence = 2 * settings.gate.confidence - 1
    champion = request.champion.adapter_id if request.champion else request.base.base_id
    own = override_share(standing(store, request.mailbox, result.adapter_id), confidence)
    other = override_share(standing(store, request.mailbox, champion), confidence)
    if own is None or other is None:
        nobody = result.adapter_id if own is None else champion
        return [Figure("feedback", None, reason=f"nobody rated an answer of {nobody}")]
    difference = own.value - other.value
    low = difference - ((own.value - own.low) ** 2 + (other.high - other.value) ** 2) ** 0.5
    high = difference + ((own.high - own.value) ** 2 + (other.value - other.low) ** 2) ** 0.5
    return [Figure("feedback", difference, low, high, min(own.n, other.n))]
