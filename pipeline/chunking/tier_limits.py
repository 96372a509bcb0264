"""What caps and weights of quality tiers mean for a run, in whole numbers to order chunks by, and what came of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.chunking.quality import Quality
from pipeline.config.settings import ReplaySettings
from pipeline.domain import Role

STEPS = 1_000_000
"""Caps and weights are taken to six decimals, so that nothing is rounded after that."""


@dataclass(frozen=True, slots=True)
class TierUse:
    """Train chunks of one quality tier in a run, with tokens by the store's ruler: taken as new, left out of the new
    windows by a cap or a weight of 0, there in earlier windows, and those of these that may be rehearsed."""

    tier: str
    new: int
    new_tokens: int
    left_out: int
    left_out_tokens: int
    earlier: int
    rehearsable: int


def limited(replay: ReplaySettings) -> bool:
    """Whether the settings weigh quality tiers at all; where not, nobody needs to know them."""
    return bool(replay.tier_caps or replay.tier_weights)


def limits(replay: ReplaySettings) -> pa.Table:
    """One row per quality tier that may be used: its ``weight`` in parts of a ``unit``, and ``part`` tokens of it at most
    beside ``rest`` tokens of the tiers without a cap, both null where it has none.

    A cap of 0 is a weight of 0, and one of 1 is none.
    """
    rows = []
    for tier in Quality:
        cap = _whole(replay.tier_caps, tier, 1)
        weight = _whole(replay.tier_weights, tier, 1)
        if cap and weight:
            share = (cap.numerator, cap.denominator - cap.numerator) if cap < 1 else (None, None)
            rows.append((tier.value, weight.numerator, weight.denominator, *share))
    names = ("tier", "weight", "unit", "part", "rest")
    types = (pa.string(), *(pa.int64(),) * 4)
    columns = zip(*rows, strict=True) if rows else ((),) * len(names)
    return pa.table([pa.array(column, kind) for column, kind in zip(columns, types, strict=True)], names=names)


def uses(candidates: pa.Table, new_windows: pa.Array, taken: pa.Table) -> tuple[TierUse, ...]:
    """What became of ``candidates`` in the manifest ``taken``, by quality tier, in the order of ``Quality``; tiers without
    a chunk are left out."""
    is_new = pc.is_in(candidates["window_idx"], value_set=new_windows)
    fresh, earlier = candidates.filter(is_new), candidates.filter(pc.invert(is_new))
    new, old = (taken.filter(pc.equal(taken["role"], role.value)) for role in (Role.NEW, Role.REHEARSAL))
    gone = fresh.filter(pc.invert(pc.is_in(fresh["chunk_id"], value_set=new["chunk_id"].combine_chunks())))
    counted = [_counted(table) for table in (new, gone, earlier, old)]
    found = []
    for tier in Quality:
        (kept, kept_tokens), (left, left_tokens), (past, _), (again, _) = (one.get(tier, (0, 0)) for one in counted)
        if kept or left or past:
            found.append(TierUse(tier.value, kept, kept_tokens, left, left_tokens, past, again))
    return tuple(found)


def _whole(given: Mapping[Any, float], tier: Quality, default: int) -> Fraction:
    return Fraction(round(given.get(tier.value, default) * STEPS), STEPS)


def _counted(table: pa.Table) -> dict[str, tuple[int, int]]:
    """Chunks and tokens by tier."""
    sums = table.group_by("tier").aggregate([("n_tokens", "count"), ("n_tokens", "sum")])
    return {
        tier: (count, tokens)
        for tier, count, tokens in zip(
            sums["tier"].to_pylist(), sums["n_tokens_count"].to_pylist(), sums["n_tokens_sum"].to_pylist(), strict=True
        )
    }
