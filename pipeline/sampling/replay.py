"""The exact batches of every epoch, in order: every new chunk once, rehearsal on top. Follows from manifest and seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.settings import ReplaySettings, TrainSettings
from pipeline.domain import Bucket, Role
from pipeline.errors import RunError
from pipeline.parquet import read_note, read_table, with_note, write_table
from pipeline.sampling.columns import Ints, codes, integers
from pipeline.sampling.manifest import Manifest
from pipeline.sampling.rehearsal import Pool, draw, quota

SCHEDULE_SCHEMA = pa.schema(
    [
        pa.field("epoch", pa.int32()),
        pa.field("batch", pa.int32()),
        pa.field("position", pa.int32()),
        pa.field("chunk_id", pa.string()),
        pa.field("role", pa.string()),
        pa.field("bucket", pa.string()),
        pa.field("n_tokens", pa.int32()),
    ]
)


@dataclass(frozen=True, slots=True)
class Batch:
    """Chunks that go through the model together: one role, one length bucket."""

    epoch: int
    role: Role
    bucket: Bucket
    chunk_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Schedule:
    """``table`` has :data:`SCHEDULE_SCHEMA`, in the order of training. ``batch`` counts from 0 through all epochs,
    ``position`` within the batch. ``context`` is what the order was drawn for (the run's id)."""

    context: str
    table: pa.Table

    @property
    def n_batches(self) -> int:
        return int(self.table["batch"][-1].as_py()) + 1 if self.table.num_rows else 0

    @property
    def share(self) -> float:
        """The effective rehearsal share: rehearsal tokens of all tokens, by the ruler."""
        every = pc.sum(self.table["n_tokens"]).as_py() or 0
        return (self.tokens(Role.REHEARSAL) / every) if every else 0.0

    def steps(self, accumulation: int) -> int:
        """Optimizer steps, a step taking ``accumulation`` batches, the last one what is left."""
        return -(-self.n_batches // accumulation)

    def tokens(self, role: Role) -> int:
        """Tokens of a role over all epochs, by the ruler."""
        return int(pc.sum(self.table.filter(pc.equal(self.table["role"], role.value))["n_tokens"]).as_py() or 0)

    def trained(self, upto_step: int, accumulation: int) -> pa.Table:
        """The rows of every batch up to and with optimizer step ``upto_step``."""
        return self.table.filter(pc.less(self.table["batch"], upto_step * accumulation))

    def batches(self) -> Iterator[Batch]:
        """All batches, in the order of training."""
        chunk_ids = self.table["chunk_id"].to_pylist()
        starts = np.flatnonzero(np.asarray(self.table["position"]) == 0)
        ends = np.append(starts, len(chunk_ids))[1:].tolist()
        heads = self.table.select(["epoch", "role", "bucket"]).take(pa.array(starts)).to_pylist()
        for head, start, end in zip(heads, starts.tolist(), ends, strict=True):
            yield Batch(head["epoch"], Role(head["role"]), Bucket(head["bucket"]), tuple(chunk_ids[start:end]))


def build_schedule(
    manifest: Manifest, *, seed: int, context: str, replay: ReplaySettings, train: TrainSettings
) -> Schedule:
    """The batches of ``train.epochs`` epochs.

    Each epoch trains every new chunk once and, on top, what :func:`pipeline.sampling.rehearsal.draw` gives for the quota. A
    batch holds chunks of one role and one length bucket, of similar length, and costs (longest chunk x chunks) at most
    ``train.batch_tokens``; a chunk longer than that is a batch of its own. Rehearsal batches stand evenly among the new
    ones. Order and composition are drawn per epoch from sha256(seed, epoch, context).
    """
    new, old = manifest.of(Role.NEW), manifest.of(Role.REHEARSAL)
    rows = pa.concat_tables([new, old]).combine_chunks()
    tokens = integers(rows["n_tokens"])
    bucket = codes(rows["bucket"])
    pool = _pool(old)
    room = quota(int(tokens[: new.num_rows].sum()), replay)
    drawn = np.zeros(old.num_rows, np.int64)
    epochs = []
    first = 0
    for epoch in range(train.epochs):
        source = _generator(seed, epoch, context)
        taken = draw(pool, drawn, room, replay)
        drawn[taken] += 1
        fresh = _batches(np.arange(new.num_rows), tokens, bucket, train.batch_tokens, source)
        again = _batches(np.sort(taken) + new.num_rows, tokens, bucket, train.batch_tokens, source)
        order = _interleaved(fresh, again)
        sizes = np.array([len(batch) for batch in order], np.int64)
        starts = np.cumsum(sizes) - sizes
        places = np.concatenate([np.empty(0, np.int64), *order])
        picked = rows.select(["chunk_id", "role", "bucket", "n_tokens"]).take(pa.array(places))
        number = np.repeat(np.arange(first, first + len(order)), sizes)
        position = np.arange(len(places)) - np.repeat(starts, sizes)
        columns = [
            np.full(len(places), epoch, np.int32),
            number.astype(np.int32),
            position.astype(np.int32),
            *picked.columns,
        ]
        epochs.append(pa.table(columns, schema=SCHEDULE_SCHEMA))
        first += len(order)
    return Schedule(context, pa.concat_tables(epochs).combine_chunks())


def write_schedule(path: Path, schedule: Schedule) -> str:
    """Writes it as a whole; returns the file's sha256."""
    return write_table(path, with_note(schedule.table, {"context": schedule.context}), plain=("chunk_id",))


def read_schedule(path: Path, sha256: str | None = None) -> Schedule:
    """Reads back what :func:`write_schedule` wrote; raises ``RunError``."""
    hint = f"remove {path} and run again: it is built anew from the manifest"
    table = read_table(path, SCHEDULE_SCHEMA, sha256, error=RunError, hint=hint)
    note = read_note(table)
    if "context" not in note:
        raise RunError(f"{path} does not say which run it is of", hint=hint)
    return Schedule(note["context"], table.replace_schema_metadata(None))


def _generator(seed: int, epoch: int, context: str) -> np.random.PCG64:
    """A source of 64-bit numbers. The raw output of a bit generator is the part of numpy's randomness that stays the same
    from version to version (NEP 19), so orders are drawn by sorting it."""
    digest = hashlib.sha256(f"{seed}:{epoch}:{context}".encode()).digest()
    return np.random.PCG64(int.from_bytes(digest, "big"))


def _batches(places: Ints, tokens: Ints, bucket: Ints, budget: int, source: np.random.PCG64) -> list[Ints]:
    """Cuts ``places`` into batches, in a drawn order.

    Chunks are sorted by length within their bucket, so that little is padded; lengths are first stretched by up to an
    eighth at random, so that a chunk meets other neighbours in each epoch.
    """
    noise: npt.NDArray[np.uint64] = source.random_raw(len(places))
    stretched = tokens[places] * (1024 + (noise >> np.uint64(57)).astype(np.int64))
    order = places[np.lexsort((noise, stretched, bucket[places]))]
    cuts = _cuts(bucket[order].tolist(), tokens[order].tolist(), budget)
    batches = np.split(order, cuts) if len(order) else []
    drawn = np.argsort(source.random_raw(len(batches)), kind="stable")
    return [batches[place] for place in drawn.tolist()]


def _cuts(buckets: list[int], lengths: list[int], budget: int) -> list[int]:
    """Where a new batch begins, the first apart: at another bucket, and where padding to the longest would not fit."""
    cuts = []
    start, longest = 0, 0
    for place, length in enumerate(lengths):
        longest = max(longest, length)
        if place and (buckets[place] != buckets[place - 1] or longest * (place - start + 1) > budget):
            cuts.append(place)
            start, longest = place, length
    return cuts


def _interleaved(new: list[Ints], old: list[Ints]) -> list[Ints]:
    """Both lists in their order, ``old`` spread evenly: batch i of n stands at (2i + 1) / 2n of the way."""
    place_new = (2 * np.arange(len(new)) + 1) * max(1, len(old))
    place_old = (2 * np.arange(len(old)) + 1) * max(1, len(new))
    order = np.argsort(np.concatenate([place_new, place_old]), kind="stable")
    both = [*new, *old]
    return [both[place] for place in order.tolist()]


def _pool(old: pa.Table) -> Pool:
    sender, thread = codes(old["sender"]), codes(old["thread_id"])
    pairs = sender * (int(thread.max(initial=0)) + 1) + thread
    return Pool(integers(old["n_tokens"]), sender, codes(pa.chunked_array([pa.array(pairs)])))
