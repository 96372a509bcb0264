"""Vectors on disk: one Parquet file with its sha256 beside it. Derived data: what is damaged is made anew, not repaired."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import MailtideError
from pipeline.home import write_atomic
from pipeline.parquet import read_table, write_table
from retrain.search.vectors import Vectors

FORMAT = 1
DATA, NOTE = "vectors.parquet", "vectors.json"


@dataclass(frozen=True, slots=True)
class VectorNote:
    """What a file of vectors holds, told without reading it. ``newest`` is the highest ordinal."""

    format: int
    model: str
    dimension: int
    documents: int
    newest: int
    sha256: str


def write_vectors(folder: Path, vectors: Vectors) -> None:
    """Replaces what the folder holds; the note, which names the digest of the data, is written last."""
    dimension = vectors.matrix.shape[1]
    table = pa.table(
        {
            "key": pa.array(vectors.keys, pa.string()),
            "ordinal": pa.array(vectors.ordinals, pa.int64()),
            "digest": pa.array(vectors.digests, pa.string()),
            "vector": pa.array([row.tobytes() for row in vectors.matrix.astype("<f4")], pa.binary(4 * dimension)),
        }
    )
    sha256 = write_table(folder / DATA, table, plain=("key", "digest", "vector"))
    note = VectorNote(FORMAT, vectors.model, dimension, len(vectors.keys), vectors.newest, sha256)
    write_atomic(folder / NOTE, (json.dumps(asdict(note), indent=1) + "\n").encode())


def read_note(folder: Path) -> VectorNote | None:
    """What the folder holds; None where there is nothing that this version can read."""
    try:
        document: Mapping[str, Any] = json.loads((folder / NOTE).read_bytes())
        note = VectorNote(**document)
    except (OSError, ValueError, TypeError):
        return None
    return note if note.format == FORMAT else None


def read_vectors(folder: Path) -> Vectors | None:
    """The vectors of a folder; None where there are none, where bytes differ from those recorded, or of another version:
    whoever asked makes them anew."""
    note = read_note(folder)
    if note is None:
        return None
    schema = pa.schema(
        [
            ("key", pa.string()),
            ("ordinal", pa.int64()),
            ("digest", pa.string()),
            ("vector", pa.binary(4 * note.dimension)),
        ]
    )
    try:
        table = read_table(folder / DATA, schema, note.sha256, error=MailtideError, hint="rebuild it")
    except MailtideError:
        return None
    data = b"".join(table["vector"].to_pylist())
    return Vectors(
        model=note.model,
        keys=tuple(table["key"].to_pylist()),
        ordinals=tuple(table["ordinal"].to_pylist()),
        digests=tuple(table["digest"].to_pylist()),
        matrix=np.frombuffer(data, dtype="<f4").reshape(-1, note.dimension).astype(np.float32),
    )
