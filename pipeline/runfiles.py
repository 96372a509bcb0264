"""The small Parquet files that pass between the owner and a run: exclusions, and losses per chunk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import RunError
from pipeline.home import atomic_path

EXCLUSIONS = pa.schema([("thread_id", pa.string()), ("chunk_id", pa.string()), ("reason", pa.string())])

LOSSES = pa.schema(
    [
        ("adapter_id", pa.string()),
        ("checkpoint", pa.string()),
        ("chunk_id", pa.string()),
        ("split", pa.string()),
        ("nll", pa.float64()),
        ("n_tokens", pa.int64()),
        ("n_bytes", pa.int64()),
        ("eval_version", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Exclusions:
    """Threads, and single chunks, that neither train nor evaluate."""

    threads: frozenset[str]
    chunks: frozenset[str]

    def hold(self, thread_id: str, chunk_id: str) -> bool:
        return thread_id in self.threads or chunk_id in self.chunks


@dataclass(frozen=True, slots=True)
class Loss:
    """Loss of one chunk under one adapter's checkpoint: ``nll`` in nats, summed over ``n_tokens`` predicted tokens, which
    spell ``n_bytes`` of text. The bare base is ``base:<base_id>`` with checkpoint ""."""

    adapter_id: str
    checkpoint: str
    chunk_id: str
    split: str
    nll: float
    n_tokens: int
    n_bytes: int
    eval_version: int


def write_exclusions(path: Path, rows: Iterable[tuple[str, str | None, str]]) -> None:
    """Writes (thread id, chunk id or None for the whole thread, reason), sorted, so that equal sets are equal bytes."""
    ordered = sorted(set(rows), key=lambda row: (row[0], row[1] or "", row[2]))
    columns = list(zip(*ordered, strict=True)) or [(), (), ()]
    table = pa.table([pa.array(column, pa.string()) for column in columns], schema=EXCLUSIONS)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def read_exclusions(path: Path) -> Exclusions:
    """Raises ``RunError`` when the file is missing or damaged."""
    rows = _read(path, EXCLUSIONS).to_pylist()
    return Exclusions(
        threads=frozenset(row["thread_id"] for row in rows if row["chunk_id"] is None),
        chunks=frozenset(row["chunk_id"] for row in rows if row["chunk_id"] is not None),
    )


def write_losses(path: Path, losses: Sequence[Loss]) -> None:
    """Writes losses in the order given."""
    arrays = [pa.array([getattr(loss, field.name) for loss in losses], field.type) for field in LOSSES]
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(arrays, schema=LOSSES), temporary)


def read_losses(path: Path) -> list[Loss]:
    """Raises ``RunError`` when the file is missing or damaged."""
    return [Loss(**row) for row in _read(path, LOSSES).to_pylist()]


def _read(path: Path, schema: pa.Schema) -> pa.Table:
    try:
        return pq.read_table(path, schema=schema)
    except (OSError, pa.ArrowInvalid) as error:
        raise RunError(
            f"{path} is missing or damaged ({str(error).splitlines()[0]})",
            hint="delete the run's folder and run `mailtide retrain --confirm` again",
        ) from error
