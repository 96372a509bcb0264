"""What a lineage trained on: per chunk, how often as new and how often rehearsed, up to each run's chosen checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import RunError
from pipeline.parquet import read_note, read_table, with_note, write_table
from pipeline.scratch import Scratch, cursor_of

if TYPE_CHECKING:
    from pipeline.runs.runfiles import Exclusions
    from pipeline.sampling.manifest import Manifest
    from pipeline.sampling.replay import Schedule

COVERAGE_SCHEMA = pa.schema(
    [
        pa.field("chunk_id", pa.string()),
        pa.field("window_idx", pa.int32()),
        pa.field("thread_id", pa.string()),
        pa.field("sender", pa.string()),
        pa.field("new_times", pa.int32()),
        pa.field("rehearsal_times", pa.int32()),
        pa.field("run_new", pa.int32()),
        pa.field("run_rehearsal", pa.int32()),
    ]
)
"""``new_times`` and ``rehearsal_times`` are cumulative over the lineage, ``run_new`` and ``run_rehearsal`` of this run."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How many chunks, and how many threads and senders with at least one such chunk."""

    chunks: int
    threads: int
    senders: int


@dataclass(frozen=True, slots=True)
class ReplayCoverage:
    """Of what earlier runs trained as new (``earlier``): what this run rehearsed, and what any run of the lineage did."""

    earlier: Reach
    this_run: Reach
    ever: Reach


def coverage_after(
    parent: Path | None, manifest: Manifest, schedule: Schedule, upto_step: int, accumulation: int
) -> pa.Table:
    """The lineage's coverage after a run whose checkpoint of optimizer step ``upto_step`` was chosen.

    Only batches up to that step count: a step takes ``accumulation`` batches. A window counts as trained when every new
    chunk of it in the manifest was reached by then (in this run or before); one without any is trained by being taken. A
    checkpoint chosen early in the first epoch may leave chunks unreached; their windows stay new as a whole, so that the
    lineage has either trained a window or not, as the gate and the next request need it. ``parent`` is the parent run's
    ``coverage.parquet`` (None without a parent).
    """
    return coverage_on(None if parent is None else read_coverage(parent), manifest, schedule, upto_step, accumulation)


def coverage_on(
    before: pa.Table | None,
    manifest: Manifest,
    schedule: Schedule,
    upto_step: int,
    accumulation: int,
    *,
    scratch: Scratch | None = None,
) -> pa.Table:
    """:func:`coverage_after` on the parent's coverage itself, None without one; ``scratch`` serves whoever asks often."""
    if before is None:
        before = with_note(COVERAGE_SCHEMA.empty_table(), {"windows": []})
    trained = schedule.trained(upto_step, accumulation)
    with cursor_of(scratch) as connection:
        connection.register("before", before)
        connection.register("trained", trained)
        connection.register("manifest", manifest.table)
        after = connection.sql(_AFTER).to_arrow_table().cast(COVERAGE_SCHEMA)
        unreached = {row[0] for row in connection.sql(_UNREACHED).fetchall()}
    windows = windows_trained(before) | (set(manifest.windows) - unreached)
    return with_note(after, {"windows": sorted(windows)})


_AFTER = """
WITH run AS (
    SELECT chunk_id, count(*) FILTER (role = 'new') AS run_new, count(*) FILTER (role = 'rehearsal') AS run_rehearsal
    FROM trained GROUP BY chunk_id
), this AS (
    SELECT chunk_id, window_idx, thread_id, sender, run_new, run_rehearsal FROM run JOIN manifest USING (chunk_id)
)
SELECT coalesce(before.chunk_id, this.chunk_id) AS chunk_id,
       coalesce(before.window_idx, this.window_idx) AS window_idx,
       coalesce(before.thread_id, this.thread_id) AS thread_id,
       coalesce(before.sender, this.sender) AS sender,
       coalesce(before.new_times, 0) + coalesce(this.run_new, 0) AS new_times,
       coalesce(before.rehearsal_times, 0) + coalesce(this.run_rehearsal, 0) AS rehearsal_times,
       coalesce(this.run_new, 0) AS run_new,
       coalesce(this.run_rehearsal, 0) AS run_rehearsal
FROM before FULL JOIN this ON before.chunk_id = this.chunk_id
ORDER BY window_idx, chunk_id
"""

_UNREACHED = """
SELECT DISTINCT window_idx FROM manifest
WHERE role = 'new'
  AND chunk_id NOT IN (SELECT chunk_id FROM trained)
  AND chunk_id NOT IN (SELECT chunk_id FROM before WHERE new_times > 0)
"""


def write_coverage(path: Path, coverage: pa.Table) -> str:
    """Writes it as a whole; returns the file's sha256, which the next run's request names."""
    return write_table(path, coverage, plain=("chunk_id",))


def read_coverage(path: Path, sha256: str | None = None) -> pa.Table:
    """Reads it back, checked against a request's digest where given; raises ``RunError``."""
    hint = "restore the parent run's folder from a backup, or roll back to an adapter whose run is whole"
    table = read_table(path, COVERAGE_SCHEMA, sha256, error=RunError, hint=hint)
    if "windows" not in read_note(table):
        raise RunError(f"{path} does not say which windows were trained", hint=hint)
    return table


def windows_trained(coverage: pa.Table) -> frozenset[int]:
    """Windows that the lineage trained as new, those without any train chunk included."""
    return frozenset(read_note(coverage)["windows"])


def replay_coverage(coverage: pa.Table, exclusions: Exclusions | None = None) -> ReplayCoverage:
    """How much of what earlier runs trained as new was rehearsed: by this run, and ever. Excluded chunks do not count."""
    earlier = coverage.filter(pc.and_(pc.greater(coverage["new_times"], 0), pc.equal(coverage["run_new"], 0)))
    if exclusions is not None:
        threads = pc.is_in(earlier["thread_id"], value_set=pa.array(sorted(exclusions.threads), pa.string()))
        chunks = pc.is_in(earlier["chunk_id"], value_set=pa.array(sorted(exclusions.chunks), pa.string()))
        earlier = earlier.filter(pc.invert(pc.or_(threads, chunks)))
    return ReplayCoverage(
        earlier=reach(earlier),
        this_run=reach(earlier.filter(pc.greater(earlier["run_rehearsal"], 0))),
        ever=reach(earlier.filter(pc.greater(earlier["rehearsal_times"], 0))),
    )


def reach(table: pa.Table) -> Reach:
    """Counts a table with columns ``thread_id`` and ``sender``, one row per chunk."""
    return Reach(table.num_rows, pc.count_distinct(table["thread_id"]).as_py(), pc.count_distinct(table["sender"]).as_py())
