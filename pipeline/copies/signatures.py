"""The signatures of one window's new messages, in a file beside the shards: derived data, made anew where it is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.chunking.chunks import message_slices, read_slice
from pipeline.chunking.shards import read_meta, read_texts
from pipeline.copies.minhash import PERMUTATIONS, Signatures, algorithm, signatures
from pipeline.copies.shingles import LEAST_WORDS, words_of
from pipeline.domain import Chunk, Split
from pipeline.errors import ShardError
from pipeline.parquet import read_note, read_table, with_note, write_table

SIGNATURES = pa.schema(
    [
        ("chunk_id", pa.string()),
        ("thread_id", pa.string()),
        ("split", pa.string()),
        ("place", pa.int32()),
        ("signature", pa.binary(2 * PERMUTATIONS)),
    ]
)
COMPARED = (Split.TRAIN.value, Split.VAL.value, Split.TEST.value)


@dataclass(frozen=True, slots=True)
class Passage:
    """A new message of a chunk that is long enough to be told from others; ``place`` counts the chunk's messages."""

    window_idx: int
    chunk_id: str
    thread_id: str
    split: str
    place: int


@dataclass(frozen=True, slots=True)
class Block:
    """The passages of a window and their signatures, in parallel."""

    window_idx: int
    passages: tuple[Passage, ...]
    signatures: Signatures


class BlockBuilder:
    """Gathers a window's block while its chunks are written, a batch at a time, so that no text is kept."""

    def __init__(self, window_idx: int) -> None:
        self._window_idx = window_idx
        self._passages: list[Passage] = []
        self._signatures = bytearray()

    def add(self, chunks: Iterable[Chunk]) -> None:
        """Takes the passages of chunks; a quarantined one has none, as it is in no split."""
        self._take(
            found
            for chunk in chunks
            for found in _long_enough(
                Passage(chunk.window_idx, chunk.chunk_id, chunk.thread_id, chunk.split.value, chunk.n_context),
                message_slices(chunk.text, chunk.starts),
            )
        )

    def add_stored(self, rows: Iterable[dict[str, Any]], texts: Mapping[str, str]) -> None:
        """The same from a shard's metadata and the texts that are not erased."""
        self._take(
            found
            for row in rows
            if row["chunk_id"] in texts
            for found in _long_enough(
                Passage(self._window_idx, row["chunk_id"], row["thread_id"], row["split"], row["n_context"]),
                message_slices(texts[row["chunk_id"]], row["starts"]),
            )
        )

    def block(self) -> Block:
        """What was gathered."""
        found = np.frombuffer(self._signatures, np.uint16).reshape(-1, PERMUTATIONS)
        return Block(self._window_idx, tuple(self._passages), found)

    def _take(self, found: Iterable[tuple[Passage, str]]) -> None:
        kept = list(found)
        self._passages += [passage for passage, _ in kept]
        self._signatures += signatures([words for _, words in kept]).tobytes()


def read_shard(folder: Path, sha256: str, window_idx: int) -> Block:
    """A closed window's block from its shard, without what was erased. Raises ``ShardError``."""
    columns = ("chunk_id", "thread_id", "split", "starts", "n_context")
    rows = [row for row in read_meta(folder, sha256, columns=columns).to_pylist() if row["split"] in COMPARED]
    ids = {row["chunk_id"] for row in rows}
    builder = BlockBuilder(window_idx)
    builder.add_stored(rows, read_texts(folder, sha256, ids, excluded=ids))
    return builder.block()


def write_block(path: Path, block: Block) -> None:
    """Writes a block as a whole."""
    passages = block.passages
    rows = pa.py_buffer(np.ascontiguousarray(block.signatures))
    arrays = [
        pa.array([passage.chunk_id for passage in passages], pa.string()),
        pa.array([passage.thread_id for passage in passages], pa.string()),
        pa.array([passage.split for passage in passages], pa.string()),
        pa.array([passage.place for passage in passages], pa.int32()),
        pa.FixedSizeBinaryArray.from_buffers(pa.binary(2 * PERMUTATIONS), len(passages), [None, rows]),
    ]
    table = pa.table(arrays, schema=SIGNATURES)
    write_table(path, with_note(table, _note(block.window_idx)), plain=("chunk_id", "signature"))


def read_block(path: Path, window_idx: int) -> Block | None:
    """A block as it was written; None where there is none that this version can use."""
    try:
        table = read_table(path, SIGNATURES, error=ShardError, hint="it is made anew from the shard")
        if read_note(table) != _note(window_idx):
            return None
    except ShardError:
        return None
    columns = [table[name].to_pylist() for name in SIGNATURES.names[:4]]
    joined = b"".join(table["signature"].to_pylist())
    found = np.frombuffer(joined, np.uint16).reshape(table.num_rows, PERMUTATIONS)
    return Block(window_idx, tuple(Passage(window_idx, *row) for row in zip(*columns, strict=True)), found)


def _note(window_idx: int) -> dict[str, object]:
    return {"window": window_idx, "algorithm": algorithm()}


def _long_enough(first: Passage, slices: list[str]) -> Iterator[tuple[Passage, str]]:
    """The messages from the place of ``first`` on that are long enough, with their words."""
    for place in range(first.place, len(slices)) if first.split in COMPARED else ():
        words = read_slice(slices[place]).words
        if len(words_of(words)) >= LEAST_WORDS:
            yield replace(first, place=place), words
