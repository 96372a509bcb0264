"""Which chunks a run may train on: new ones, and earlier ones rehearsed, in which order. From the shards' metadata."""

from __future__ import annotations

import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.chunking.tier_limits import TierUse, limited, uses
from pipeline.chunking.tiers import scores_of, with_quality
from pipeline.config.settings import ReplayCaps, ReplaySettings
from pipeline.domain import Bucket, Role, Split
from pipeline.errors import RunError
from pipeline.home import Home
from pipeline.parquet import read_note, read_table, with_note, write_table
from pipeline.runs.requests import RunRequest, ShardRef
from pipeline.runs.runfiles import Exclusions
from pipeline.sampling.columns import Ints, integers
from pipeline.sampling.coverage import COVERAGE_SCHEMA, read_coverage, windows_trained
from pipeline.sampling.objectives import read_examples
from pipeline.sampling.rehearsal import quota
from pipeline.sampling.turns import Turns
from pipeline.scratch import Scratch, cursor_of

MANIFEST_SCHEMA = pa.schema(
    [
        pa.field("chunk_id", pa.string()),
        pa.field("role", pa.string()),
        pa.field("window_idx", pa.int32()),
        pa.field("thread_id", pa.string()),
        pa.field("sender", pa.string()),
        pa.field("bucket", pa.string()),
        pa.field("tier", pa.string()),
        pa.field("n_tokens", pa.int32()),
        pa.field("rehearsed", pa.int32()),
        pa.field("rank", pa.int32()),
    ]
)

_SOURCE_COLUMNS = ("chunk_id", "window_idx", "thread_id", "sender", "bucket", "tier", "n_tokens")
CANDIDATE_SCHEMA = pa.schema([MANIFEST_SCHEMA.field(name) for name in _SOURCE_COLUMNS])
_ENCODED = ("thread_id", "sender", "bucket", "tier", "split")
"""Texts that stand in many rows: read as numbers and a dictionary, they take two thirds of the memory and of the time."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """``table`` has :data:`MANIFEST_SCHEMA`, new chunks first, each role in the order of ``rank`` (from 1).

    ``rehearsed`` counts how often the parent's lineage rehearsed the chunk. ``windows`` are those taken as new, in order,
    also where they hold no train chunk: a run that reaches all of their chunks has trained them. Where the settings limit
    quality tiers, the column ``tier`` holds those, and ``tiers`` says what became of each; else it holds the classes of the
    shards, and ``tiers`` is empty.
    """

    run_id: str
    windows: tuple[int, ...]
    table: pa.Table
    tiers: tuple[TierUse, ...] = ()

    def of(self, role: Role) -> pa.Table:
        """The rows of one role, in the order of their rank."""
        return self.table.filter(pc.equal(self.table["role"], role.value))


def waiting_windows(closed: Collection[int], trained: Collection[int], most: int) -> tuple[int, ...]:
    """The closed windows that a lineage has not trained as new, the newest ``most`` of them, in order: what a request
    names as ``new_windows``. Older ones wait until fewer do."""
    return tuple(sorted(set(closed) - set(trained)))[-most:]


def build_manifest(home: Home, request: RunRequest, exclusions: Exclusions, coverage: Path | None) -> Manifest:
    """The manifest of ``request``, of chunks that are examples of its objective; ``coverage`` is the parent run's
    ``coverage.parquet``, None without a parent.

    New are the train chunks of the request's windows and, with ``rolling`` N above 1, of the last N-1 that the parent's
    lineage trained. Rehearsal are those of the windows that it trained before. Every file is checked against the request's
    digests. Raises ``ShardError`` for a damaged shard and ``RunError`` for a request that does not fit the lineage.

    Chunks stand in the order of (times rehearsed, hash). With ``windows`` the windows take turns: without them the newest
    window, which nothing was rehearsed of yet, would take the whole quota once that is as large as a window. With
    ``stratified`` threads take turns within their sender, and senders within the whole, the least rehearsed first in each
    turn. What is longer than an epoch's quota, or of a bucket whose
    cap is 0, cannot be rehearsed and does not take a turn. So the first of all is always one of the least rehearsed, the
    schedule always has room for it, and none is out of reach for ever. The hash is drawn anew by the newest new window:
    with a fixed one, chunks with a high hash would starve for as long as mail comes in faster than it is rehearsed.

    Where ``replay.tier_caps`` or ``tier_weights`` say anything, the quality tier of every candidate is derived from its
    text. A new chunk that a cap leaves out belongs to a window that is trained all the same, so it may be rehearsed later,
    under the same cap.
    """
    if (coverage is None) != (request.parent is None):
        raise RunError("a run has its parent's coverage exactly when it has a parent", hint="claim the run again")
    lineage = None if coverage is None else read_coverage(coverage, request.coverage_sha256)
    trained = frozenset() if lineage is None else windows_trained(lineage)
    settings = request.settings
    _check(request, trained, _again(trained, settings.rolling))
    taken = windows_taken(request.new_windows, trained, rolling=settings.rolling, replay=settings.replay)
    candidates = _candidates(home, request, {*taken.new, *taken.old}, exclusions)
    return manifest_of(request.run_id, candidates, taken.new, lineage, seed=settings.seed, replay=settings.replay)


@dataclass(frozen=True, slots=True)
class WindowsTaken:
    """The windows that a run takes as ``new``, in order, and the ``old`` ones that it may rehearse."""

    new: tuple[int, ...]
    old: frozenset[int]


def windows_taken(
    asked: Collection[int], trained: Collection[int], *, rolling: int, replay: ReplaySettings
) -> WindowsTaken:
    """What a run that is asked for some new windows takes, ``trained`` being those that the parent's lineage trained."""
    new = {*asked, *_again(trained, rolling)}
    old = frozenset() if replay.strategy == "none" else frozenset(trained) - new
    return WindowsTaken(tuple(sorted(new)), old)


def manifest_of(
    run_id: str,
    candidates: pa.Table,
    new: tuple[int, ...],
    lineage: pa.Table | None,
    *,
    seed: int,
    replay: ReplaySettings,
    scratch: Scratch | None = None,
) -> Manifest:
    """Orders and caps ``candidates``: the train chunks of the windows taken, with :data:`CANDIDATE_SCHEMA`, in the order
    of their shards, and with their quality tier as ``tier`` where ``replay`` limits those. ``lineage`` is the parent's
    coverage, None without a parent; ``scratch`` serves whoever builds many."""
    drawn_by = f"{seed}/{new[-1] if new else 0}"
    table = _ranked(candidates, new, lineage, drawn_by, replay, scratch)
    tiers = uses(candidates, pa.array(new, pa.int32()), table) if limited(replay) else ()
    return Manifest(run_id, new, table, tiers)


def write_manifest(path: Path, manifest: Manifest) -> str:
    """Writes it as a whole; returns the file's sha256."""
    note: dict[str, Any] = {"run_id": manifest.run_id, "windows": list(manifest.windows)}
    if manifest.tiers:
        note["tiers"] = [asdict(tier) for tier in manifest.tiers]
    return write_table(path, with_note(manifest.table, note), plain=("chunk_id",))


def read_manifest(path: Path, sha256: str | None = None) -> Manifest:
    """Reads back what :func:`write_manifest` wrote; raises ``RunError``."""
    hint = f"remove {path} and run again: it is built anew from the shards"
    table = read_table(path, MANIFEST_SCHEMA, sha256, error=RunError, hint=hint)
    note = read_note(table)
    if "run_id" not in note:
        raise RunError(f"{path} does not say which run it is of", hint=hint)
    tiers = tuple(TierUse(**tier) for tier in note.get("tiers", ()))
    return Manifest(note["run_id"], tuple(note["windows"]), table.replace_schema_metadata(None), tiers)


def _again(trained: Collection[int], rolling: int) -> list[int]:
    """The newest trained windows, which a rolling run takes as new again."""
    return sorted(trained)[len(trained) - min(len(trained), rolling - 1) :]


def _check(request: RunRequest, trained: Collection[int], rolling: Collection[int]) -> None:
    """Refuses a request whose windows are not closed, not in order, too many, or trained already."""
    problems = []
    closed = {shard.window_idx for shard in request.shards}
    if len(closed) != len(request.shards):
        problems.append("a window is listed with two shards")
    if list(request.new_windows) != sorted(set(request.new_windows)):
        problems.append("the new windows are not in order, each once")
    if not_closed := {*request.new_windows, *trained} - closed:
        problems.append(f"window {min(not_closed)} has no shard")
    if again := set(request.new_windows) & set(trained) - set(rolling):
        problems.append(f"window {min(again)} was trained as new by the parent's lineage")
    if len(request.new_windows) > request.settings.replay.max_new_windows:
        problems.append(f"{len(request.new_windows)} new windows are more than replay.max_new_windows")
    if problems:
        raise RunError(f"run {request.run_id} does not fit its lineage: {'; '.join(problems)}", hint="claim the run again")


def _candidates(home: Home, request: RunRequest, windows: set[int], exclusions: Exclusions) -> pa.Table:
    """Train chunks of ``windows`` without those excluded, in the shards' order, each shard verified as it is read."""
    threads, chunks = pa.array(sorted(exclusions.threads), pa.string()), pa.array(sorted(exclusions.chunks), pa.string())

    def read(shard: ShardRef) -> pa.Table:
        table = read_examples(home, request, shard, columns=[*_SOURCE_COLUMNS, "split"], encoded=_ENCODED)
        table = table.filter(pc.equal(table["split"], Split.TRAIN.value)).select(_SOURCE_COLUMNS)
        for name, gone in (("thread_id", threads), ("chunk_id", chunks)):
            if len(gone):
                table = table.filter(pc.invert(pc.is_in(table[name], value_set=gone)))
        if not limited(request.settings.replay):
            return table
        scores = scores_of(home, request.mailbox, shard.window_idx, home.root / shard.path, shard.sha256)
        return with_quality(table, scores)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        wanted = [shard for shard in request.shards if shard.window_idx in windows]
        return pa.concat_tables(pool.map(read, wanted)) if wanted else CANDIDATE_SCHEMA.empty_table()


def _ranked(
    candidates: pa.Table,
    new: Collection[int],
    lineage: pa.Table | None,
    seed: str,
    replay: ReplaySettings,
    scratch: Scratch | None,
) -> pa.Table:
    """Orders and caps ``candidates``."""
    times = (COVERAGE_SCHEMA.empty_table() if lineage is None else lineage).select(["chunk_id", "rehearsal_times"])
    times = times.filter(pc.greater(times["rehearsal_times"], 0)).rename_columns(["chunk_id", "times"])
    is_new = np.isin(integers(candidates["window_idx"]), sorted(new))
    tokens = integers(candidates["n_tokens"])
    buckets, caps = _capped(candidates["bucket"], replay.caps)
    with cursor_of(scratch) as connection:
        turns = Turns(candidates, times, replay, seed, connection)
        fresh = turns.order(is_new)
        room = quota(int(tokens[fresh.place].sum()), replay)
        again = turns.first(~is_new & (tokens <= room) & (caps[buckets] > 0), buckets, caps)
    again = again.at(np.arange(min(len(again.place), replay.max_rehearsal)))
    place, rehearsed = (np.concatenate(both) for both in ((fresh.place, again.place), (fresh.rehearsed, again.rehearsed)))
    sizes = (len(fresh.place), len(again.place))
    taken = _taken(candidates, place)
    columns = dict(zip(taken.column_names, taken.columns, strict=True))
    columns["role"] = pa.array([Role.NEW.value, Role.REHEARSAL.value]).take(pa.array(np.repeat([0, 1], sizes)))
    columns |= {"rehearsed": rehearsed, "rank": np.concatenate([np.arange(1, size + 1) for size in sizes])}
    return pa.table([columns[name] for name in MANIFEST_SCHEMA.names], names=MANIFEST_SCHEMA.names).cast(MANIFEST_SCHEMA)


def _capped(column: pa.ChunkedArray, given: ReplayCaps) -> tuple[Ints, Ints]:
    """Numbers of the buckets in ``column``, and the cap of each number."""
    names = [bucket.value for bucket in Bucket]
    numbers = integers(pc.index_in(column, value_set=pa.array(names)))
    return numbers, np.array([getattr(given, name) for name in names], np.int64)


def _taken(candidates: pa.Table, place: Ints) -> pa.Table:
    """The rows at ``place``, in that order. Filtered first, as taking puts all of a table into one piece."""
    chosen = np.zeros(candidates.num_rows, bool)
    chosen[place] = True
    rows = candidates.filter(pa.array(chosen)).cast(CANDIDATE_SCHEMA)
    return rows.take(pa.array(np.searchsorted(np.flatnonzero(chosen), place)))
