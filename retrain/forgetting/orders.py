"""Orders in which a manifest's rehearsal may be drawn, beside the product's own. Pure: tables in, a table out.

The schedule's ``uniform`` draw takes the manifest's rehearsal rows from the top until its quota is full, and goes on from
there in the next epoch, so an order of these rows is a strategy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.domain import Role
from pipeline.sampling.manifest import Manifest
from pipeline.sampling.replay import Schedule

FLOOR = 0.5
"""The part of a forgetting-weighted rehearsal that all past windows share equally, however little they rose."""


def by_window(manifest: Manifest, weights: Mapping[int, float]) -> Manifest:
    """The rehearsal so that past windows take turns, in proportion to ``weights`` by tokens; within a window as before.

    The chunk that ends after t tokens of its window stands at t / weight: every beginning of the order holds windows in
    the proportion asked for, as exactly as whole chunks can (Sainte-Laguë's rule, on tokens).
    """
    old = manifest.of(Role.REHEARSAL)
    windows, tokens = _numbers(old, "window_idx"), _numbers(old, "n_tokens").astype(np.float64)
    place = np.zeros(old.num_rows)
    for window in np.unique(windows):
        mine = windows == window
        place[mine] = (np.cumsum(tokens[mine]) - tokens[mine] / 2) / weights[int(window)]
    return _reordered(manifest, np.argsort(place, kind="stable"))


def equal(manifest: Manifest) -> Manifest:
    """As much of every past window."""
    return by_window(manifest, {int(idx): 1.0 for idx in np.unique(_numbers(manifest.of(Role.REHEARSAL), "window_idx"))})


def by_forgetting(manifest: Manifest, rises: Mapping[int, float]) -> Manifest:
    """More of those windows whose val loss rose more above its best: ``FLOOR`` of the quota equally, the rest in
    proportion to ``rises`` (nats per token, windows without one count as 0)."""
    windows = [int(idx) for idx in np.unique(_numbers(manifest.of(Role.REHEARSAL), "window_idx"))]
    risen = {idx: max(0.0, rises.get(idx, 0.0)) for idx in windows}
    total = sum(risen.values())
    if not total:
        return equal(manifest)
    return by_window(manifest, {idx: FLOOR / len(windows) + (1 - FLOOR) * risen[idx] / total for idx in windows})


def by_sender(manifest: Manifest, seed: int) -> Manifest:
    """Senders take turns, in a drawn order, each time with a chunk drawn anew: nothing tells what was rehearsed before."""
    old = manifest.of(Role.REHEARSAL)
    sender = np.asarray(old["sender"].combine_chunks().dictionary_encode().indices).astype(np.int64)
    source = np.random.PCG64(seed)
    chance = source.random_raw(old.num_rows)
    drawn = np.lexsort((chance, sender))
    starts = np.flatnonzero(np.r_[True, np.diff(sender[drawn]) > 0])
    turn = np.empty(old.num_rows, np.int64)
    turn[drawn] = np.arange(old.num_rows) - np.repeat(starts, np.diff(np.r_[starts, old.num_rows]))
    return _reordered(manifest, np.lexsort((chance, turn)))


def silent_first(manifest: Manifest) -> Manifest:
    """First the mail of senders who do not write in the new windows: who writes again is rehearsed by the new mail."""
    old, new = manifest.of(Role.REHEARSAL), manifest.of(Role.NEW)
    writes = np.asarray(pc.is_in(old["sender"], value_set=pc.unique(new["sender"])))
    return _reordered(manifest, np.argsort(writes, kind="stable"))


def in_place(manifest: Manifest, share: float) -> Manifest:
    """Leaves so much new mail out that with rehearsal of ``share`` in its place as many tokens are trained as there is new
    mail in all."""
    new, old = manifest.of(Role.NEW), manifest.of(Role.REHEARSAL)
    upto = np.cumsum(_numbers(new, "n_tokens"))
    kept = int(np.searchsorted(upto, (1 - share) * (upto[-1] if len(upto) else 0), side="right"))
    return replace(manifest, table=pa.concat_tables([new.slice(0, max(1, kept)), old]).combine_chunks())


def late(schedule: Schedule) -> Schedule:
    """The same batches, rehearsal evenly among the second half of the new ones, where the learning rate falls."""
    table = schedule.table
    batch, position = _numbers(table, "batch"), _numbers(table, "position")
    first = np.flatnonzero(position == 0)
    again = np.asarray(pc.equal(table["role"], Role.REHEARSAL.value))[first]
    n_new, n_old = int((~again).sum()), int(again.sum())
    place = np.empty(len(first))
    place[~again] = (np.arange(n_new) + 0.5) / max(1, n_new)
    place[again] = 0.5 + (np.arange(n_old) + 0.5) / max(1, n_old) / 2
    order = np.argsort(place, kind="stable")
    rank = np.empty(len(first), np.int64)
    rank[order] = np.arange(len(first))
    rows = np.lexsort((position, rank[batch]))
    moved = table.take(pa.array(rows))
    renumbered = pa.array(rank[batch][rows], pa.int32())
    return replace(schedule, table=moved.set_column(moved.column_names.index("batch"), "batch", renumbered))


def _reordered(manifest: Manifest, order: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Manifest:
    old = manifest.of(Role.REHEARSAL).take(pa.array(order))
    rank = pa.array(np.arange(1, old.num_rows + 1), pa.int32())
    old = old.set_column(old.column_names.index("rank"), old.schema.field("rank"), rank)
    return replace(manifest, table=pa.concat_tables([manifest.of(Role.NEW), old]).combine_chunks())


def _numbers(table: pa.Table, name: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.asarray(table[name]).astype(np.int64)
