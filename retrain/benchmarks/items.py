"""``benchmarks.parquet`` of a run: what each model scored on each item of each task. It holds scores alone, no text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from pipeline.errors import RunError
from pipeline.parquet import read_table, write_table

ITEMS = "benchmarks.parquet"

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("adapter_id", "checkpoint", "task", "metric", "task_sha256")),
        ("harness", pa.string()),
        ("item", pa.int64()),
        ("cluster", pa.string()),
        ("value", pa.float64()),
        ("size", pa.float64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Item:
    """One item under one model: ``value / size`` is its score, so 0 or 1 by 1 for a question, bits by bytes for text.

    ``item`` is its place in the task's data; items of one ``cluster`` ask about the same thing and are no independent
    evidence. The same weights, ``task_sha256`` and ``harness`` (a version) are the same score.
    """

    adapter_id: str
    checkpoint: str
    task: str
    metric: str
    task_sha256: str
    harness: str
    item: int
    cluster: str
    value: float
    size: float


def write_items(path: Path, items: Sequence[Item]) -> None:
    """Writes items in the order given."""
    write_table(path, pa.Table.from_pylist([asdict(item) for item in items], schema=SCHEMA))


def read_items(path: Path) -> list[Item]:
    """Empty where there is no such file, as in runs that measured none; raises ``RunError`` when it is damaged."""
    if not path.is_file():
        return []
    hint = "delete it: `mailtide benchmark` measures an adapter anew"
    return [Item(**row) for row in read_table(path, SCHEMA, error=RunError, hint=hint).to_pylist()]
