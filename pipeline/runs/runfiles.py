"""The small Parquet files that pass between the owner and a run: exclusions, and losses per chunk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipeline.errors import RunError
from pipeline.parquet import read_table, write_table
from pipeline.store.rows import LossRow

EXCLUSIONS = pa.schema([("thread_id", pa.string()), ("chunk_id", pa.string()), ("reason", pa.string())])

NEAR_COPY = "near copy of "
"""What the reason of an exclusion begins with where a held-out chunk is a near copy of one in another split."""

ERASED = "erased by "
"""What the reason of an exclusion begins with where a chunk's text was erased; the erasure's id follows."""

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
    """Threads, and single chunks, that neither train nor evaluate; ``copies`` are those of the chunks that were left out as
    near copies of what another split holds, and for nothing else."""

    threads: frozenset[str] = frozenset()
    chunks: frozenset[str] = frozenset()
    copies: frozenset[str] = frozenset()

    @classmethod
    def of(cls, rows: Iterable[tuple[str, str | None, str]]) -> Exclusions:
        """From (thread, chunk or None for the whole thread, reason)."""
        listed = list(rows)
        single = {chunk_id for _, chunk_id, _ in listed if chunk_id is not None}
        others = {chunk_id for _, chunk_id, reason in listed if not reason.startswith(NEAR_COPY)}
        threads = {thread_id for thread_id, chunk_id, _ in listed if chunk_id is None}
        return cls(frozenset(threads), frozenset(single), frozenset(single - others))

    def hold(self, thread_id: str, chunk_id: str) -> bool:
        """Whether the chunk of that thread is left out."""
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

    @classmethod
    def of(cls, row: LossRow) -> Loss:
        """A stored loss, as a run reads it."""
        return cls(**{name: getattr(row, name) for name in LOSSES.names})


def write_exclusions(path: Path, rows: Iterable[tuple[str, str | None, str]]) -> str:
    """Writes (thread id, chunk id or None for the whole thread, reason), each once and in order; returns the sha256."""
    ordered = sorted(set(rows), key=lambda row: (row[0], row[1] or "", row[2]))
    columns = list(zip(*ordered, strict=True)) or [(), (), ()]
    arrays = [pa.array(column, pa.string()) for column in columns]
    return write_table(path, pa.table(arrays, schema=EXCLUSIONS))


def read_exclusions(path: Path, sha256: str | None = None) -> Exclusions:
    """Raises ``RunError`` when the file is missing, damaged, or has another digest than the request names."""
    hint = "claim the run again with `mailtide retrain --confirm`"
    rows = read_table(path, EXCLUSIONS, sha256, error=RunError, hint=hint).to_pylist()
    return Exclusions.of((row["thread_id"], row["chunk_id"], row["reason"]) for row in rows)


def write_losses(path: Path, losses: Sequence[Loss]) -> None:
    """Writes losses in the order given."""
    arrays = [pa.array([getattr(loss, field.name) for loss in losses], field.type) for field in LOSSES]
    write_table(path, pa.table(arrays, schema=LOSSES))


def read_losses(path: Path) -> list[Loss]:
    """Raises ``RunError`` when the file is missing or damaged."""
    hint = "delete the run's folder and run `mailtide retrain --confirm` again"
    return [Loss(**row) for row in read_table(path, LOSSES, error=RunError, hint=hint).to_pylist()]
