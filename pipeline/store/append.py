"""The one way into the store: whole batches of rows, bodies first, then all the rest in a single transaction.

A transaction writes one file. So bodies are committed first and only where they are missing: after a crash in between
they are bodies without a row, which harms nothing and is there already when the batch is appended again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from pipeline.errors import StoreError
from pipeline.store.connection import store_errors, transaction
from pipeline.store.probe import hash_of, near, registered
from pipeline.store.rows import Row
from pipeline.store.tables import ROW_TYPES, Table, quoted, table_of, to_arrow

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def append_rows(connection: DuckDBPyConnection, rows: Iterable[Row]) -> None:
    """Appends all rows or none, each table's in the order given.

    A text or person that is stored already is left as it is. Any other row that repeats a key raises ``StoreError``.
    """
    grouped: dict[type[Row], list[Row]] = defaultdict(list)
    for row in rows:
        grouped[type(row)].append(row)
    batches = {table_of(row_type): grouped[row_type] for row_type in sorted(grouped, key=ROW_TYPES.index)}
    bodies = {table: _once(table, batch) for table, batch in batches.items() if table.row_type.BODIES}
    others = {table: batch for table, batch in batches.items() if not table.row_type.BODIES}
    for table, batch in others.items():
        _refuse_repeats(connection, table, batch)
    missing = {table: _missing(connection, table, batch) for table, batch in bodies.items()}
    _write(connection, {table: batch for table, batch in missing.items() if batch})
    _write(connection, others)


def _write(connection: DuckDBPyConnection, batches: Mapping[Table, Sequence[Row]]) -> None:
    if not batches:
        return
    with ExitStack() as stack:
        for table, batch in batches.items():
            stack.enter_context(registered(connection, f"{table.row_type.TABLE}_batch", to_arrow(table, batch)))
        with transaction(connection, "append"):
            for table in batches:
                connection.execute(_insert(table))


def _insert(table: Table) -> str:
    hashes = "".join(f", {hash_of(column)}" for column in table.hashed)
    names = quoted([*table.columns, *(f"{column}_hash" for column in table.hashed)])
    return f"INSERT INTO {table.name} ({names}) SELECT {quoted(table.columns)}{hashes} FROM {table.row_type.TABLE}_batch"


def _once(table: Table, batch: Sequence[Row]) -> list[Row]:
    """The batch without repetitions of a key: the first counts."""
    key = attrgetter(*table.keys[0])
    first: dict[object, Row] = {}
    for row in batch:
        first.setdefault(key(row), row)
    return list(first.values())


def _missing(connection: DuckDBPyConnection, table: Table, batch: Sequence[Row]) -> list[Row]:
    (column,) = table.keys[0]
    key = attrgetter(column)
    stored = {found for (found,) in _stored(connection, table, (column,), batch)}
    return [row for row in batch if key(row) not in stored]


def _refuse_repeats(connection: DuckDBPyConnection, table: Table, batch: Sequence[Row]) -> None:
    for key in table.keys:
        values = attrgetter(*key)
        seen = set()
        for row in batch:
            value = values(row)
            if value in seen:
                raise StoreError(f"append: {_named(table, key, value)} is given twice")
            seen.add(value)
        repeated = _stored(connection, table, key, batch)
        if repeated:
            raise StoreError(f"append: {_named(table, key, repeated[0])} is stored already")


def _stored(
    connection: DuckDBPyConnection, table: Table, key: Sequence[str], batch: Sequence[Row]
) -> list[tuple[Any, ...]]:
    """Keys of the batch that the table holds already."""
    relation = "_".join((table.row_type.TABLE, *key, "asked"))
    with store_errors("look for repeated keys"), registered(connection, relation, to_arrow(table, batch, key)):
        perhaps = _perhaps(table, key, relation, batch)
        if not connection.execute(f"SELECT 1 FROM {table.name} WHERE {perhaps} LIMIT 1").fetchall():
            return []
        found: list[tuple[Any, ...]] = connection.execute(
            f"WITH near AS MATERIALIZED (SELECT {quoted(key)} FROM {table.name} WHERE {perhaps}) "
            f"SELECT {quoted(key)} FROM near SEMI JOIN {relation} USING ({quoted(key)})"
        ).fetchall()
        return found


def _perhaps(table: Table, key: Sequence[str], relation: str, batch: Sequence[Row]) -> str:
    """A condition that every row with a key of the batch satisfies and few others do, answered without reading much: by
    hash, or by the range of its numbers, which the table's zone maps know."""
    hashed = table.probe(key)
    if hashed is not None:
        return near(table.name, hashed, relation)
    ranges = []
    for column, kind in zip(table.columns, table.kinds, strict=True):
        if column in key and kind is int:
            numbers = [*map(attrgetter(column), batch)]
            ranges.append(f'"{column}" BETWEEN {min(numbers)} AND {max(numbers)}')
    return " AND ".join(ranges) or "true"


def _named(table: Table, key: Sequence[str], value: object) -> str:
    values = value if isinstance(value, tuple) else (value,)
    return f"{table.name} " + ", ".join(f"{column} {part}" for column, part in zip(key, values, strict=True))
