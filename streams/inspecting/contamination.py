"""Which held-out chunks left evaluation as near copies, and what figures would be with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.runs.runfiles import NEAR_COPY
from pipeline.store import Store


@dataclass(frozen=True, slots=True)
class Copy:
    """A chunk that left evaluation, since which window, and what it is a near copy of."""

    chunk_id: str
    split: str
    window_idx: int
    since_window: int
    reason: str


@dataclass(frozen=True, slots=True)
class Effect:
    """One adapter's loss on a split in nats per token: as it is told, ``without`` the copies, and as it would be ``with``
    those of them that were measured. ``copies_alone`` is the loss on them: what was trained on costs less."""

    adapter_id: str
    checkpoint: str
    split: str
    n_chunks: int
    n_copies: int
    without: float
    with_copies: float
    copies_alone: float


@dataclass(frozen=True, slots=True)
class Contamination:
    """``held_out`` counts the val and test chunks of the mailbox, copies included."""

    mailbox: str
    held_out: int
    copies: tuple[Copy, ...]
    effects: tuple[Effect, ...]


_COPIES = f"""
    SELECT e.chunk_id, c.split, c.window_idx, min(e.since_window) AS since, min(e.reason)
    FROM exclusion_rows AS e JOIN chunk_rows AS c USING (mailbox, chunk_id)
    WHERE e.mailbox = ? AND starts_with(e.reason, '{NEAR_COPY}')
    GROUP BY ALL ORDER BY since, c.window_idx, e.chunk_id
"""
_EFFECTS = f"""
    WITH copies AS (
        SELECT DISTINCT chunk_id FROM exclusion_rows
        WHERE mailbox = $1 AND chunk_id IS NOT NULL AND starts_with(reason, '{NEAR_COPY}')
    ), others AS (
        SELECT thread_id, chunk_id FROM exclusion_rows WHERE mailbox = $1 AND NOT starts_with(reason, '{NEAR_COPY}')
    ), measured AS (
        SELECT l.adapter_id, l.checkpoint, l.split, l.nll, l.n_tokens, l.chunk_id IN (SELECT chunk_id FROM copies) AS copy
        FROM loss_rows AS l JOIN chunk_rows AS c USING (mailbox, chunk_id)
        WHERE l.mailbox = $1 AND l.eval_version = (
            SELECT max(o.eval_version) FROM loss_rows AS o WHERE o.mailbox = $1 AND o.adapter_id = l.adapter_id
        ) AND NOT EXISTS (
            SELECT 1 FROM others AS x
            WHERE x.chunk_id = l.chunk_id OR (x.chunk_id IS NULL AND x.thread_id = c.thread_id)
        )
    )
    SELECT adapter_id, checkpoint, split, count(*) FILTER (NOT copy), count(*) FILTER (copy),
           sum(nll) FILTER (NOT copy) / sum(n_tokens) FILTER (NOT copy), sum(nll) / sum(n_tokens),
           sum(nll) FILTER (copy) / sum(n_tokens) FILTER (copy)
    FROM measured GROUP BY adapter_id, checkpoint, split
    HAVING count(*) FILTER (copy) > 0 AND count(*) FILTER (NOT copy) > 0
    ORDER BY adapter_id, checkpoint, split DESC
"""


def contamination(store: Store, mailbox: str) -> Contamination:
    """What is known of near copies in a mailbox, and of what they would do to the figures of adapters and base."""
    held_out = store.query("SELECT count(*) FROM chunk_rows WHERE mailbox = ? AND split IN ('val', 'test')", [mailbox])
    return Contamination(
        mailbox,
        int(held_out[0][0]),
        tuple(Copy(*row) for row in store.query(_COPIES, [mailbox])),
        _effects(store.query(_EFFECTS, [mailbox])),
    )


def _effects(rows: Sequence[tuple[object, ...]]) -> tuple[Effect, ...]:
    return tuple(Effect(*row) for row in rows)  # type: ignore[arg-type]
