"""All that a home holds, in a form that two homes can be compared by: rows without times of processing, files by digest."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pipeline.home import Home, sha256_file
from pipeline.store import Store

PROCESSING = {
    "taken",
    "window_states",
    "deliveries",
    "duplicate_rows",
    "migrations",
    "guard",
    "owned_partitions",
    "source_offsets",
}
"""Tables that record how often something was tried, not what became of it."""

TIMES = {"at", "created_at", "registered_at", "started_at", "finished_at", "cost"}


def rows_of(home: Home, *, without: Collection[str] = ()) -> dict[str, list[tuple[Any, ...]]]:
    """Every table of both files: its rows in order, without the columns that hold times of processing or are named."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    with Store.open(home, None, None) as store:
        columns = store.query(
            """
            SELECT table_catalog, table_name, list(column_name ORDER BY ordinal_position)
            FROM information_schema.columns
            WHERE table_catalog IN ('store', 'bodies') AND table_name IN
                (SELECT table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE')
            GROUP BY ALL ORDER BY ALL
            """
        )
        for catalog, table, names in columns:
            if table not in PROCESSING:
                kept = ", ".join(f'"{name}"' for name in names if name not in TIMES and name not in without)
                found[f"{catalog}.{table}"] = store.query(f"SELECT {kept} FROM {catalog}.main.{table} ORDER BY ALL")
    return found


def shards_of(home: Home) -> dict[str, str]:
    """Every file under ``shards/`` by its path: the sha256."""
    root = home.root / "shards"
    return {file.relative_to(root).as_posix(): sha256_file(file) for file in sorted(root.rglob("*")) if file.is_file()}
