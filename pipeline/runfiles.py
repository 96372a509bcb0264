"""Losses per chunk as the file that passes between the owner and a run. Exclusions are in :mod:`pipeline.exclusions`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipeline.errors import RunError
from pipeline.parquet import read_table, write_table

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


def write_losses(path: Path, losses: Sequence[Loss]) -> None:
    """Writes losses in the order given."""
    arrays = [pa.array([getattr(loss, field.name) for loss in losses], field.type) for field in LOSSES]
    write_table(path, pa.table(arrays, schema=LOSSES))


def read_losses(path: Path) -> list[Loss]:
    """Raises ``RunError`` when the file is missing or damaged."""
    hint = "delete the run's folder and run `mailtide retrain --confirm` again"
    return [Loss(**row) for row in read_table(path, LOSSES, error=RunError, hint=hint).to_pylist()]
