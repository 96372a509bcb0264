"""The frozen sample: which val and test chunks are measured, the same for every adapter and nested from run to run."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pipeline.domain import Split
from pipeline.home import Home
from pipeline.runs.requests import RunRequest
from pipeline.runs.runfiles import Exclusions
from pipeline.sampling.objectives import read_examples

COLUMNS = ("chunk_id", "thread_id", "window_idx", "split", "new_from")


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A chunk that is measured and never trained on."""

    chunk_id: str
    thread_id: str
    window_idx: int
    split: Split
    new_from: int


def held_out_chunks(home: Home, request: RunRequest, exclusions: Exclusions) -> list[HeldOut]:
    """Every val and test chunk of the request's shards that is an example of its objective, exclusions left out, in the
    order of the shards."""
    found = []
    for shard in request.shards:
        for row in read_examples(home, request, shard, columns=COLUMNS).to_pylist():
            if row["split"] in (Split.VAL, Split.TEST) and not exclusions.hold(row["thread_id"], row["chunk_id"]):
                found.append(HeldOut(**{**row, "split": Split(row["split"])}))
    return found


def frozen_sample(chunks: Sequence[HeldOut], new_windows: Collection[int], max_chunks: int) -> list[HeldOut]:
    """At most ``max_chunks`` per split, those with the lowest hashes, and all of the new windows.

    The highest hash let in falls as an archive grows and never rises, so a chunk that has left the sample does not come
    back, and what a later run measures of the past is a part of what earlier runs measured. Order: split, window, id.
    """
    kept: set[str] = {chunk.chunk_id for chunk in chunks if chunk.window_idx in new_windows}
    for split in (Split.VAL, Split.TEST):
        ranked = sorted((_rank(chunk.chunk_id), chunk.chunk_id) for chunk in chunks if chunk.split is split)
        kept.update(chunk_id for _, chunk_id in ranked[:max_chunks])
    chosen = [chunk for chunk in chunks if chunk.chunk_id in kept]
    return sorted(chosen, key=lambda chunk: (chunk.split is not Split.VAL, chunk.window_idx, chunk.chunk_id))


def _rank(chunk_id: str) -> bytes:
    return hashlib.sha256(f"held-out:{chunk_id}".encode()).digest()
