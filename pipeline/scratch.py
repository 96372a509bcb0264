"""An in-memory DuckDB for queries over tables at hand. Starting one costs more than most such queries, so whoever has many
shares one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb


class Scratch:
    """Use it in ``with``. What exceeds DuckDB's share of memory goes to a private temporary folder."""

    def __enter__(self) -> Scratch:
        self._spill = tempfile.TemporaryDirectory(prefix="mailtide-")
        self._connection = duckdb.connect(":memory:")
        self._connection.execute("SET temp_directory = ?", [self._spill.name])
        return self

    def __exit__(self, *failure: object) -> None:
        self._connection.close()
        self._spill.cleanup()

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own: tables registered there are seen there only."""
        return self._connection.cursor()


@contextmanager
def cursor_of(shared: Scratch | None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A cursor of the shared database, else of one that lasts as long."""
    if shared is None:
        with Scratch() as own, own.cursor() as cursor:
            yield cursor
    else:
        with shared.cursor() as cursor:
            yield cursor
