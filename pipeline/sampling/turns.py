"""The order in which a manifest lists chunks: who is due first, by one SQL, and then whose turn it is.

DuckDB hashes and sorts, which is most of the work; turns are counted on whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.chunking.tier_limits import limited, limits
from pipeline.config.settings import ReplaySettings
from pipeline.sampling.balance import balanced
from pipeline.sampling.columns import Bools, Ints, codes, in_order, integers, place_within

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True, slots=True)
class Listed:
    """Chunks in an order: their ``place`` among the candidates, and how often they were ``rehearsed``."""

    place: Ints
    rehearsed: Ints

    def at(self, order: Ints) -> Listed:
        return Listed(self.place[order], self.rehearsed[order])


@dataclass(frozen=True, slots=True)
class Turns:
    """Orders ``candidates`` as ``replay`` says. ``lineage`` says how many ``times`` each ``chunk_id`` was rehearsed that
    was; ``seed`` draws among equals."""

    candidates: pa.Table
    lineage: pa.Table
    replay: ReplaySettings
    seed: str
    connection: DuckDBPyConnection

    def order(self, wanted: Bools) -> Listed:
        """Those candidates that are ``wanted``, but for what caps and weights of quality tiers leave out."""
        due = self._due(wanted)
        listed = due.at(self._in_turn(due.place))
        return listed.at(self._balanced(listed.place)) if limited(self.replay) else listed

    def first(self, wanted: Bools, buckets: Ints, caps: Ints) -> Listed:
        """Of :meth:`order`, the first of each bucket, as many as its cap lets in; ``buckets`` of all candidates."""
        if self.replay.strategy != "windows" or limited(self.replay):
            listed = self.order(wanted)
            return listed.at(first_of_each(buckets[listed.place], caps))
        due = self._due(wanted)
        windows = integers(self.candidates["window_idx"])[due.place]
        return due.at(first_in_turn(windows, buckets[due.place], caps))

    def _due(self, wanted: Bools) -> Listed:
        """By times rehearsed, then by hash, whoever else waits for a turn."""
        source = self.candidates.select(["chunk_id", "tier"])
        source = source.append_column("place", pa.array(np.arange(source.num_rows, dtype=np.int32)))
        self.connection.register("source", source.append_column("wanted", pa.array(wanted)))
        self.connection.register("lineage", self.lineage)
        self.connection.register("limits", limits(self.replay))
        sql = _DUE_BY_WEIGHT if limited(self.replay) else _DUE
        found = self.connection.sql(sql, params={"seed": self.seed}).to_arrow_table()
        return Listed(integers(found["place"]), integers(found["rehearsed"]))

    def _in_turn(self, place: Ints) -> Ints:
        """The order of those at ``place``, who stand in the order in which they are due."""
        if self.replay.strategy == "windows":
            return in_order(_turn(integers(self.candidates["window_idx"])[place]))
        if self.replay.strategy == "uniform":
            return np.arange(len(place))
        sender, thread = (codes(self.candidates[name])[place] for name in ("sender", "thread_id"))
        by_thread = in_order(_turn(codes(pa.chunked_array([pa.array(sender << 32 | thread)]))))
        turn = np.empty_like(by_thread)
        turn[by_thread] = _turn(sender[by_thread])
        return in_order(turn)

    def _balanced(self, place: Ints) -> Ints:
        shares = limits(self.replay)
        tier = pc.index_in(self.candidates["tier"].take(pa.array(place)), value_set=shares["tier"].combine_chunks())
        pairs = zip(shares["part"].to_pylist(), shares["rest"].to_pylist(), strict=True)
        tokens = integers(self.candidates["n_tokens"])[place]
        return balanced(tokens, integers(tier), [(part, rest) if part else None for part, rest in pairs])


def first_of_each(buckets: Ints, caps: Ints) -> Ints:
    """The places, in order, of the first of each bucket, as many as its cap lets in."""
    return np.sort(np.concatenate([np.flatnonzero(buckets == bucket)[:cap] for bucket, cap in enumerate(caps.tolist())]))


def first_in_turn(windows: Ints, buckets: Ints, caps: Ints, looked_at: int = 2**17) -> Ints:
    """Places of chunks that stand in the order in which they are due, in the order in which their windows take turns, the
    first of each bucket as its cap lets in.

    A turn depends on those who are due before alone. So it is enough to look at the first, as many as it takes for every
    window that goes on beyond them to be past the last turn that is listed.
    """
    wanted = np.minimum(np.bincount(buckets, minlength=len(caps)), caps).sum()
    of_window = np.bincount(windows)
    while True:
        turn = _turn(windows[:looked_at])
        order = in_order(turn)
        listed = order[first_of_each(buckets[order], caps)]
        seen = np.bincount(windows[:looked_at], minlength=len(of_window))
        reached = seen[seen < of_window].min(initial=len(windows))
        if len(listed) == wanted and turn[listed].max(initial=-1) < reached:
            return listed
        looked_at *= 16


def _turn(group: Ints) -> Ints:
    """Of each member, how many of its group stand before it."""
    return place_within(group, in_order(group))


_CANDIDATES = """
    SELECT place, tier, coalesce(times, 0)::INTEGER AS rehearsed, md5_number($seed || ':' || chunk_id) AS hash
    FROM source LEFT JOIN lineage USING (chunk_id) WHERE wanted"""

_DUE = f"SELECT place, rehearsed FROM ({_CANDIDATES}) ORDER BY rehearsed, hash"

# Due is who has the least of (times rehearsed, then a place drawn between this time and the next) by weight: twice the
# weight is rehearsed twice as often. With equal weights that is the order by (times rehearsed, hash).
_DUE_BY_WEIGHT = f"""
SELECT place, rehearsed FROM ({_CANDIDATES}) JOIN limits USING (tier)
ORDER BY ((rehearsed::HUGEINT << 32) + (hash >> 96)::HUGEINT) * unit // weight, hash
"""
