"""What all arms of a study share: windows of train and val chunks, as the model sees them, and the base."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.chunking.shards import read_meta, read_texts
from pipeline.config.settings import Settings
from pipeline.domain import Split
from pipeline.errors import NothingToDo
from pipeline.home import Home, private_dir
from pipeline.runs.requests import ShardRef
from pipeline.sampling.manifest import CANDIDATE_SCHEMA
from retrain.forgetting.figures import ValChunk
from retrain.models.base import build
from retrain.models.model import Compute, load_tokenizer
from retrain.training.batches import Example, Source, encode
from retrain.training.checkpoints import seal
from retrain.training.metrics import StepRecord
from retrain.training.token_cache import TokenCache, way_of


@dataclass(frozen=True, slots=True)
class Sizes:
    """Chunks of a window at most, drawn by hash: ``train`` of each, ``first`` of window 0, ``val`` of each."""

    train: int
    first: int
    val: int


@dataclass(frozen=True, slots=True)
class Material:
    """``candidates`` has :data:`pipeline.sampling.manifest.CANDIDATE_SCHEMA`, all windows; ``windows`` are their numbers in
    order. ``examples`` holds every train and val chunk of the study by id."""

    windows: tuple[int, ...]
    candidates: pa.Table
    val: tuple[ValChunk, ...]
    examples: Mapping[str, Example]
    base: Path
    pad: int

    def val_of(self, windows: Sequence[int]) -> list[Example]:
        return [self.examples[chunk.chunk_id] for chunk in self.val if chunk.window in windows]


def prepare(
    home: Home,
    shards: Sequence[ShardRef],
    settings: Settings,
    sizes: Sizes,
    base: Path,
    compute: Compute,
    on_step: Callable[[StepRecord], None],
) -> Material:
    """Samples the shards' chunks, makes the base of all train chunks of window 0 where it is not there yet, and tokenises.

    Raises ``NothingToDo`` when a window has nothing to train on or to measure.
    """
    tables: list[pa.Table] = []
    val: list[ValChunk] = []
    chosen: list[list[dict[str, Any]]] = []
    for shard in shards:
        folder = home.root / shard.path
        names = [*CANDIDATE_SCHEMA.names, "split", "new_from"]
        meta = read_meta(folder, shard.sha256, columns=names)
        train = _sampled(meta, Split.TRAIN, sizes.train if tables else sizes.first)
        held_out = _sampled(meta, Split.VAL, sizes.val)
        if not train.num_rows or not held_out.num_rows:
            raise NothingToDo(
                f"window {shard.window_idx} has {train.num_rows} train and {held_out.num_rows} val chunks",
                hint="take more mails per window with --mails",
            )
        if not tables and not base.is_dir():
            _make_base(folder, shard.sha256, meta, settings, base, compute, on_step)
        tables.append(train.select(CANDIDATE_SCHEMA.names).cast(CANDIDATE_SCHEMA))
        chosen.append([*train.to_pylist(), *held_out.to_pylist()])
        val += [
            ValChunk(row["chunk_id"], row["thread_id"], row["sender"], shard.window_idx) for row in held_out.to_pylist()
        ]
    tokenizer = load_tokenizer(base)
    context = min(settings.model.context or settings.model.builtin.context, settings.model.builtin.context)
    cache = TokenCache(home, Path(shards[0].path).parent.name, way_of(tokenizer, context), settings.train.token_cache_gib)
    examples: dict[str, Example] = {}
    for shard, rows in zip(shards, chosen, strict=True):
        examples |= _examples(home, shard, rows, cache, lambda sources: encode(tokenizer, sources, context))
    measured = tuple(chunk for chunk in val if examples[chunk.chunk_id].n_labels > 0)
    windows = tuple(shard.window_idx for shard in shards)
    return Material(windows, pa.concat_tables(tables), measured, examples, base, int(tokenizer.pad_token_id or 0))


def _examples(
    home: Home,
    shard: ShardRef,
    rows: Sequence[Mapping[str, Any]],
    cache: TokenCache,
    make: Callable[[Sequence[Source]], list[Example]],
) -> dict[str, Example]:
    kept = cache.read(shard, [row["chunk_id"] for row in rows])
    lacking = [row for row in rows if row["chunk_id"] not in kept]
    if not lacking:
        return kept
    texts = read_texts(home.root / shard.path, shard.sha256, [row["chunk_id"] for row in lacking])
    made = make([Source(row["chunk_id"], texts[row["chunk_id"]], row["new_from"]) for row in lacking])
    cache.add(shard, made)
    return kept | {example.chunk_id: example for example in made}


def _sampled(meta: pa.Table, split: Split, most: int) -> pa.Table:
    """At most ``most`` chunks of a split, those with the lowest hashes, in the shard's order."""
    rows = meta.filter(pc.equal(meta["split"], split.value))
    ids = rows["chunk_id"].to_pylist()
    chosen = sorted(range(len(ids)), key=lambda place: hashlib.sha256(f"study:{ids[place]}".encode()).digest())[:most]
    return rows.take(pa.array(sorted(chosen), pa.int64()))


def _make_base(
    folder: Path,
    sha256: str,
    meta: pa.Table,
    settings: Settings,
    base: Path,
    compute: Compute,
    on_step: Callable[[StepRecord], None],
) -> None:
    wanted = meta.filter(pc.equal(meta["split"], Split.TRAIN.value))["chunk_id"].to_pylist()
    texts: dict[str, Any] = read_texts(folder, sha256, wanted)
    written = private_dir(base.with_name(f".{base.name}.partial"))
    build([texts[chunk_id] for chunk_id in wanted], settings.model.builtin, settings.seed, compute, written, on_step)
    seal(written)
    written.replace(base)
