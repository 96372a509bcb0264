"""A whole view as a file, streamed: what people take elsewhere."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UsageError
from pipeline.home import atomic_path

if TYPE_CHECKING:
    from pyarrow import RecordBatch

    from pipeline.store.store import Store

VIEWS = (
    "messages",
    "assignments",
    "threads",
    "windows",
    "bridges",
    "exclusions",
    "erasures",
    "masked",
    "spot_checks",
    "duplicates",
    "dead_letters",
    "runs",
    "metrics",
    "losses",
    "replies",
    "written",
    "questions",
    "trained_on",
    "adapters",
    "journal",
)
"""The views that people query; their names and columns are a public contract."""

Batches = Iterator["RecordBatch"]


def export_view(store: Store, view: str, format: str, path: Path) -> int:
    """Writes all rows of a view as of now, and returns how many; ``path`` is replaced as a whole.

    CSV has a header, NULL as nothing, and lists as JSON; JSON is one array of row objects. In both, times are ISO 8601 in
    UTC, and what is no finite number is NULL.
    """
    if view not in VIEWS:
        raise UsageError(f"there is no view {view!r}", hint=f"views: {', '.join(VIEWS)}")
    formats = {"csv": _csv, "json": _json, "parquet": _parquet}
    if format not in formats:
        raise UsageError(f"there is no format {format!r}", hint=f"formats: {', '.join(formats)}")
    with atomic_path(path) as temporary:
        return formats[format](store.read_view(view), temporary)


def _csv(batches: Batches, path: Path) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        for index, batch in enumerate(batches):
            if index == 0:
                writer.writerow(batch.schema.names)
            for row in batch.to_pylist():
                writer.writerow(json.dumps(cell) if isinstance(cell, list) else _plain(cell) for cell in row.values())
            count += batch.num_rows
    return count


def _json(batches: Batches, path: Path) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        for batch in batches:
            for row in batch.to_pylist():
                file.write(",\n" if count else "\n")
                json.dump({name: _plain(cell) for name, cell in row.items()}, file, ensure_ascii=False)
                count += 1
        file.write("\n]\n")
    return count


def _parquet(batches: Batches, path: Path) -> int:
    import pyarrow.parquet as pq

    first = next(batches)
    count = 0
    with pq.ParquetWriter(path, first.schema) as writer:
        for batch in chain([first], batches):
            writer.write_batch(batch)
            count += batch.num_rows
    return count


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.isoformat() if isinstance(value, datetime) else value
