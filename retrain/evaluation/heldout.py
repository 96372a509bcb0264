"""The frozen sample: which val and test chunks are measured, the same for every adapter and nested from run to run."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Collection
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.chunking.shards import CHUNK_SCHEMA
from pipeline.domain import Split
from pipeline.home import Home
from pipeline.runs.requests import RunRequest
from pipeline.runs.runfiles import Exclusions
from pipeline.sampling.objectives import read_examples

COLUMNS = ("chunk_id", "thread_id", "window_idx", "split", "new_from")
SCHEMA = pa.schema([CHUNK_SCHEMA.field(name) for name in COLUMNS])
HELD_OUT = pa.array([Split.VAL.value, Split.TEST.value])


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A chunk that is measured and never trained on."""

    chunk_id: str
    thread_id: str
    window_idx: int
    split: Split
    new_from: int


def held_out_chunks(home: Home, request: RunRequest, exclusions: Exclusions) -> pa.Table:
    """Every val and test chunk of the request's shards that is an example of its objective, exclusions left out, in the
    order of the shards: one row of :data:`COLUMNS` each, as an archive may hold millions."""
    tables = [SCHEMA.empty_table()]
    for shard in request.shards:
        table = read_examples(home, request, shard, columns=COLUMNS)
        table = table.filter(pc.is_in(table["split"], value_set=HELD_OUT))
        rows = zip(table["thread_id"].to_pylist(), table["chunk_id"].to_pylist(), strict=True)
        keep = [not exclusions.hold(thread_id, chunk_id) for thread_id, chunk_id in rows]
        tables.append(table.filter(pa.array(keep, pa.bool_())).replace_schema_metadata(None))
    return pa.concat_tables(tables)


def val_threads(chunks: pa.Table) -> frozenset[str]:
    """The threads of the val chunks among ``chunks``, rows of :data:`COLUMNS`."""
    val = chunks.filter(pc.equal(chunks["split"], Split.VAL.value))
    return frozenset(pc.unique(val["thread_id"]).to_pylist())


def frozen_sample(chunks: pa.Table, new_windows: Collection[int], max_chunks: int) -> list[HeldOut]:
    """At most ``max_chunks`` per split, those with the lowest hashes, and all of the new windows.

    The highest hash let in falls as an archive grows and never rises, so a chunk that has left the sample does not come
    back, and what a later run measures of the past is a part of what earlier runs measured. Order: split, window, id.
    """
    ids, splits = chunks["chunk_id"].to_pylist(), chunks["split"].to_pylist()
    places = {place for place, window in enumerate(chunks["window_idx"].to_pylist()) if window in new_windows}
    for split in HELD_OUT.to_pylist():
        of_split = (place for place, name in enumerate(splits) if name == split)
        places.update(heapq.nsmallest(max_chunks, of_split, key=lambda place: _rank(ids[place])))
    rows = chunks.take(pa.array(sorted(places), pa.int64())).to_pylist()
    chosen = [HeldOut(**{**row, "split": Split(row["split"])}) for row in rows]
    return sorted(chosen, key=lambda chunk: (chunk.split is not Split.VAL, chunk.window_idx, chunk.chunk_id))


def _rank(chunk_id: str) -> bytes:
    return hashlib.sha256(f"held-out:{chunk_id}".encode()).digest()
