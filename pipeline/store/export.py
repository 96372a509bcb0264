"""A whole view as a file, streamed: what people take elsewhere."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UsageError
from pipeline.home import atomic_path
from pipeline.store.connection import store_errors
from pipeline.store.people_sql import reading

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pipeline.store.store import Store

VIEWS = (
    "messages",
    "assignments",
    "threads",
    "windows",
    "bridges",
    "exclusions",
    "duplicates",
    "dead_letters",
    "runs",
    "metrics",
    "losses",
    "trained_on",
    "adapters",
    "journal",
)
"""The views that people query; their names and columns are a public contract."""

PAGE = 10_000


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
    with store.cursor() as cursor, store_errors(f"export {view}"), reading(cursor), atomic_path(path) as temporary:
        return formats[format](cursor, f"SELECT * FROM {view}", temporary)


def _csv(cursor: DuckDBPyConnection, sql: str, path: Path) -> int:
    count = 0
    cursor.execute(sql)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(column[0] for column in cursor.description)
        for row in _rows(cursor):
            writer.writerow(json.dumps(value) if isinstance(value, list) else _plain(value) for value in row)
            count += 1
    return count


def _json(cursor: DuckDBPyConnection, sql: str, path: Path) -> int:
    cursor.execute(sql)
    columns = [column[0] for column in cursor.description]
    count = 0
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        for row in _rows(cursor):
            file.write(",\n" if count else "\n")
            json.dump(dict(zip(columns, map(_plain, row), strict=True)), file, ensure_ascii=False)
            count += 1
        file.write("\n]\n")
    return count


def _parquet(cursor: DuckDBPyConnection, sql: str, path: Path) -> int:
    import pyarrow.parquet as pq

    count = 0
    with cursor.sql(sql).to_arrow_reader(PAGE) as batches, pq.ParquetWriter(path, batches.schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            count += batch.num_rows
    return count


def _rows(cursor: DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while page := cursor.fetchmany(PAGE):
        yield from page


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.isoformat() if isinstance(value, datetime) else value
