"""The one way into the store: whole batches of rows, bodies first, then all the rest in a single transaction.

A transaction writes one file. So bodies are committed first and only where they are missing: after a crash in between
they are bodies without a row, which harms nothing and is there already when the batch is appended again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from pipeline.errors import StoreError
from pipeline.store.connection import store_errors, transaction
from pipeline.store.probe import FEW, hash_of, hash_of_text, near, near_few, registered
from pipeline.store.rows import Row
from pipeline.store.tables import ROW_TYPES, Packed, Table, joined, quoted, table_of, to_arrow

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


FEW_VALUES = 100
"""Up to so many go into an insert as they are; reading them from Arrow would cost more."""


def append_rows(connection: DuckDBPyConnection, rows: Iterable[Row | Packed]) -> None:
    """Appends all rows or none, each table's in the order given, packed ones after the others.

    A text or person that is stored already is left as it is. Any other row that repeats a key raises ``StoreError``.
    """
    grouped: dict[type[Row], list[Row]] = defaultdict(list)
    packed: dict[type[Row], list[Packed]] = defaultdict(list)
    for row in rows:
        if isinstance(row, Packed):
            packed[row.row_type].append(row)
        else:
            grouped[type(row)].append(row)
    bodies: dict[Table, Any] = {}
    others: dict[Table, Any] = {}
    for row_type in sorted(grouped.keys() | packed.keys(), key=ROW_TYPES.index):
        table = table_of(row_type)
        if row_type.BODIES:
            missing = _missing(connection, table, _once(table, grouped[row_type]))
            if missing:
                bodies[table] = to_arrow(table, missing)
        else:
            others[table] = joined(table, grouped[row_type], packed[row_type])
            _refuse_repeats(connection, table, others[table], grouped[row_type])
    _write(connection, bodies)
    _write(connection, others)


def _write(connection: DuckDBPyConnection, batches: Mapping[Table, Any]) -> None:
    if not batches:
        return
    with ExitStack() as stack:
        inserts = [_insert(stack, connection, table, batch) for table, batch in batches.items()]
        with transaction(connection, "append"):
            for sql, values in inserts:
                connection.execute(sql, values)


def _insert(stack: ExitStack, connection: DuckDBPyConnection, table: Table, batch: Any) -> tuple[str, list[Any]]:
    """The statement that appends an Arrow table, and its parameters; what it reads else is lent until the stack ends."""
    columns = [*table.columns, *(f"{column}_hash" for column in table.hashed)]
    into = f"INSERT INTO {table.name} ({quoted(columns)})"
    if len(columns) * len(batch) <= FEW_VALUES:
        values = [batch[column].to_pylist() for column in table.columns]
        values += [
            [None if text is None else hash_of_text(text) for text in batch[column].to_pylist()] for column in table.hashed
        ]
        marks = ", ".join(["(" + ", ".join("?" * len(columns)) + ")"] * len(batch))
        return f"{into} VALUES {marks}", [value for row in zip(*values, strict=True) for value in row]
    relation = f"{table.row_type.TABLE}_batch"
    stack.enter_context(registered(connection, relation, batch))
    hashes = "".join(f", {hash_of(column)}" for column in table.hashed)
    return f"{into} SELECT {quoted(table.columns)}{hashes} FROM {relation}", []


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
    stored = {found for (found,) in _stored(connection, table, (column,), to_arrow(table, batch, (column,)))}
    return [row for row in batch if key(row) not in stored]


def _refuse_repeats(connection: DuckDBPyConnection, table: Table, batch: Any, rows: Sequence[Row]) -> None:
    """``rows`` are those of the Arrow table ``batch``, as far as they were not packed."""
    for key in table.keys:
        keys = batch.select(list(key))
        if len(rows) == len(keys):
            distinct = len(set(map(attrgetter(*key), rows)))
        else:
            distinct = keys.group_by(list(key), use_threads=False).aggregate([]).num_rows
        if distinct < len(keys):
            counted = Counter(zip(*(column.to_pylist() for column in keys.columns), strict=True))
            raise StoreError(f"append: {_named(table, key, counted.most_common(1)[0][0])} is given twice")
        repeated = _stored(connection, table, key, keys)
        if repeated:
            raise StoreError(f"append: {_named(table, key, repeated[0])} is stored already")


def _stored(connection: DuckDBPyConnection, table: Table, key: Sequence[str], keys: Any) -> list[tuple[Any, ...]]:
    """Those of the ``keys``, an Arrow table, that the store holds already."""
    hashed = table.probe(key)
    if hashed is not None and len(keys) <= FEW:
        asked = set(zip(*(column.to_pylist() for column in keys.columns), strict=True))
        with store_errors("look for repeated keys"):
            close = connection.execute(
                f"SELECT {quoted(keys.column_names)} FROM {table.name} "
                f"WHERE {near_few(table.name, hashed, keys[hashed].to_pylist())}"
            ).fetchall()
        return [row for row in close if row in asked]
    relation = "_".join((table.row_type.TABLE, *key, "asked"))
    with store_errors("look for repeated keys"), registered(connection, relation, keys):
        perhaps = _perhaps(table, key, relation, keys)
        if not connection.execute(f"SELECT 1 FROM {table.name} WHERE {perhaps} LIMIT 1").fetchall():
            return []
        found: list[tuple[Any, ...]] = connection.execute(
            f"WITH near AS MATERIALIZED (SELECT {quoted(key)} FROM {table.name} WHERE {perhaps}) "
            f"SELECT {quoted(key)} FROM near SEMI JOIN {relation} USING ({quoted(key)})"
        ).fetchall()
        return found


def _perhaps(table: Table, key: Sequence[str], relation: str, keys: Any) -> str:
    """A condition that every row with one of the keys satisfies and few others do, answered without reading much: by hash,
    or by the range of their numbers, which the table's zone maps know."""
    hashed = table.probe(key)
    if hashed is not None:
        return near(table.name, hashed, relation)
    ranges = []
    for column, kind in zip(table.columns, table.kinds, strict=True):
        if column in key and kind is int:
            numbers = keys[column].to_pylist()
            ranges.append(f'"{column}" BETWEEN {min(numbers)} AND {max(numbers)}')
    return " AND ".join(ranges) or "true"


def _named(table: Table, key: Sequence[str], value: tuple[object, ...]) -> str:
    return f"{table.name} " + ", ".join(f"{column} {part}" for column, part in zip(key, value, strict=True))
