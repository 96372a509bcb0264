"""The exact training set of a run, beside the run: the chunks that its schedule names, new and rehearsed, as a shard.

A run trains from it. So what a run was made of stays whole when shards are moved away, for as many of the newest runs as
``train.keep_sets`` says; the run's manifest tells which of the chunks were new. It holds text, so erasing reaches it.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from pipeline.chunking.shards import (
    CHUNK_SCHEMA,
    CHUNKS,
    DISTINCT,
    ROWS_AT_ONCE,
    TEXT,
    TEXT_SCHEMA,
    erase_texts,
    read_meta,
    read_rows,
    read_texts,
)
from pipeline.home import Home, atomic_path, sha256_file
from pipeline.parquet import open_writer
from pipeline.runs.requests import RunRequest

TRAINING_SET = "training_set"


def write_training_set(home: Home, request: RunRequest, chunk_ids: Collection[str]) -> None:
    """Writes the chunks ``chunk_ids`` of the request's shards into the run's folder, once, in the order of the shards.

    Each text is checked against its digest as it is read. Raises ``ShardError``.
    """
    folder = home.run(request.run_id) / TRAINING_SET
    if (folder / CHUNKS).is_file():
        return
    wanted = set(chunk_ids)
    with (
        atomic_path(folder / CHUNKS) as chunks_file,
        atomic_path(folder / TEXT) as text_file,
        open_writer(chunks_file, CHUNK_SCHEMA, plain=DISTINCT) as metadata,
        open_writer(text_file, TEXT_SCHEMA, plain=TEXT_SCHEMA.names) as text,
    ):
        for shard in request.shards:
            source = home.root / shard.path
            table = read_rows(source, shard.sha256, wanted)
            if not table.num_rows:
                continue
            metadata.write_table(table)
            texts = list(read_texts(source, shard.sha256, table["chunk_id"].to_pylist()).items())
            for first in range(0, len(texts), ROWS_AT_ONCE):
                columns = list(zip(*texts[first : first + ROWS_AT_ONCE], strict=True))
                text.write_table(pa.table(columns, schema=TEXT_SCHEMA))


def training_set(home: Home, run_id: str) -> Path | None:
    """The folder of a run's training set; None where it was never written, or dropped since."""
    folder = home.run(run_id) / TRAINING_SET
    return folder if (folder / CHUNKS).is_file() else None


def archived_texts(folder: Path, wanted: Collection[str]) -> dict[str, str]:
    """Texts of a training set by chunk id, each checked against the digest beside it; raises ``ShardError``."""
    return read_texts(folder, sha256_file(folder / CHUNKS), wanted)


def drop_older(home: Home, run_ids: Sequence[str], keep: int) -> list[str]:
    """Removes the training sets of all of ``run_ids``, the newest first, but the first ``keep`` that have one; returns the
    runs that lost theirs."""
    having = [run_id for run_id in run_ids if training_set(home, run_id) is not None]
    for run_id in having[keep:]:
        shutil.rmtree(home.run(run_id) / TRAINING_SET)
    return having[keep:]


def erase_from_archives(home: Home, chunk_ids: Collection[str]) -> list[Path]:
    """Takes the texts of ``chunk_ids`` out of every run's training set; their metadata, which holds none, stays. Returns
    the folders that were rewritten; erasing again rewrites none."""
    rewritten = []
    for folder in _all(home):
        held = set(_texts(folder, chunk_ids))
        if held:
            erase_texts(folder, held)
            rewritten.append(folder)
    return rewritten


def _texts(folder: Path, wanted: Collection[str]) -> dict[str, str]:
    sha256 = sha256_file(folder / CHUNKS)
    ids = set(read_meta(folder, sha256, columns=("chunk_id",))["chunk_id"].to_pylist()) & set(wanted)
    return read_texts(folder, sha256, ids, excluded=ids)


def _all(home: Home) -> Iterator[Path]:
    """Every training set of the home, those that a reproduction broke off among them."""
    for place in (home.root, *sorted((home.root / "reproductions").glob("*"))):
        for chunks in sorted((place / "runs").glob(f"*/{TRAINING_SET}/{CHUNKS}")):
            if not chunks.parent.is_symlink() and not chunks.parent.parent.is_symlink():
                yield chunks.parent
