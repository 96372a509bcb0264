"""Quality tiers of a window's chunks, kept in a file of the home: derived data, made anew where it is missing."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.chunking.quality import COLUMNS, QUALITY_VERSION, SHARES, quality_of, signals_of
from pipeline.chunking.shards import read_meta, read_texts
from pipeline.errors import RunError, ShardError
from pipeline.home import Home, private_dir
from pipeline.parquet import read_note, read_table, with_note, write_table

SCORES = pa.schema(
    [
        ("chunk_id", pa.string()),
        ("quality", pa.string()),
        *((name, pa.int32() if name == "depth" else pa.float64()) for name in SHARES),
        ("language", pa.string()),
    ]
)
"""A chunk's quality tier and the signals that it follows from."""


def scores_of(home: Home, mailbox: str, window_idx: int, folder: Path, sha256: str) -> pa.Table:
    """:data:`SCORES` of a closed window's chunks, in the shard's order, those whose text was erased left out.

    ``folder`` and ``sha256`` are of its shard. What was scored before is read from ``tiers/MAILBOX/``, so a window is
    scored once, however many runs ask. Raises ``ShardError`` for a damaged shard.
    """
    path = home.root / "tiers" / mailbox / f"window={window_idx:06d}.parquet"
    note = {"version": QUALITY_VERSION, "shard": sha256}
    if path.is_file():
        try:
            table = read_table(path, SCORES, error=ShardError, hint="it is made anew from the shard")
            if read_note(table) == note:
                return table.replace_schema_metadata(None)
        except ShardError:
            pass  # derived: what cannot be read is made anew
    table = _scored(folder, sha256)
    private_dir(path.parent)
    write_table(path, with_note(table, note), plain=("chunk_id",))
    return table


def with_quality(chunks: pa.Table, scores: pa.Table) -> pa.Table:
    """``chunks`` with their quality tier in the column ``tier``. Raises ``RunError`` for one that has no score."""
    places = pc.index_in(chunks["chunk_id"], value_set=scores["chunk_id"].combine_chunks())
    if places.null_count:
        first = chunks["chunk_id"].filter(pc.is_null(places))[0].as_py()
        raise RunError(f"chunk {first} has no text to tell its quality tier by", hint="claim the run again")
    return chunks.set_column(chunks.column_names.index("tier"), "tier", scores["quality"].take(places))


def _scored(folder: Path, sha256: str) -> pa.Table:
    rows = read_meta(folder, sha256, columns=COLUMNS).to_pylist()
    texts = read_texts(folder, sha256, None, excluded=[row["chunk_id"] for row in rows])
    found = []
    for row in rows:
        text = texts.get(row["chunk_id"])
        if text is not None:
            signals = signals_of(row, text)
            numbers = {name: getattr(signals, name) for name in (*SHARES, "language")}
            found.append({"chunk_id": row["chunk_id"], "quality": quality_of(row["tier"], signals).value, **numbers})
    return pa.Table.from_pylist(found, schema=SCORES)
