"""What the row classes say about their tables: columns, Arrow types, keys, and which columns carry a hash beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from pipeline.store import rows
from pipeline.store.rows import Row

ROW_TYPES: tuple[type[Row], ...] = tuple(
    value for value in vars(rows).values() if isinstance(value, type) and issubclass(value, Row) and value is not Row
)
"""Every table, in the order in which a batch is written."""

HASHED: dict[str, tuple[str, ...]] = {
    "texts": ("sha256",),
    "people": ("key",),
    "raws": ("sha256",),
    "message_rows": ("message_key", "base_key", "subject_norm_key", "thread_id"),
    "thread_rows": ("thread_id",),
    "links": ("id",),
    "quarantined_ids": ("id",),
    "correspondents": ("person_key",),
    "chunk_rows": ("chunk_id",),
    "loss_rows": ("chunk_id",),
    "trained_rows": ("chunk_id",),
}
"""Columns with a ``<column>_hash`` beside them, by table: those that are looked up by the thousand in large tables.

A probe of 3,000 ids against 600,000 rows reads 8 bytes a row in 4 ms; the ids themselves, decompressed, took 34 ms, and
an index as large as the table six times over.
"""


@dataclass(frozen=True, slots=True)
class Table:
    """A table as its row class describes it. ``name`` is qualified; ``kinds`` and ``lists`` run along ``columns``:
    the scalar type of each, and whether it holds several."""

    row_type: type[Row]
    name: str
    columns: tuple[str, ...]
    kinds: tuple[type, ...]
    lists: tuple[bool, ...]
    keys: tuple[tuple[str, ...], ...]
    hashed: tuple[str, ...]

    def probe(self, key: Sequence[str]) -> str | None:
        """The hashed column of a key, if it has one."""
        return next((column for column in key if column in self.hashed), None)


def table_of(row_type: type[Row]) -> Table:
    """The table of a row class."""
    return _TABLES[row_type]


def _read(row_type: type[Row]) -> Table:
    hints = get_type_hints(row_type)
    columns = tuple(field.name for field in fields(row_type))
    described = [_described(hints[name]) for name in columns]
    return Table(
        row_type,
        f"bodies.{row_type.TABLE}" if row_type.BODIES else row_type.TABLE,
        columns,
        tuple(kind for kind, _ in described),
        tuple(is_list for _, is_list in described),
        row_type.KEYS,
        HASHED.get(row_type.TABLE, ()),
    )


def quoted(names: Sequence[str], prefix: str = "") -> str:
    """Column names for SQL; some, ``at`` above all, are words of its grammar."""
    return ", ".join(f'{prefix}"{name}"' for name in names)


def to_arrow(table: Table, batch: Sequence[Row], columns: Sequence[str] | None = None) -> Any:
    """Rows as a ``pyarrow.Table`` with the table's columns, or only some of them."""
    from pipeline.arrow import pa

    arrow = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), bytes: pa.binary()}
    arrow[datetime] = pa.timestamp("us")
    wanted = table.columns if columns is None else columns
    arrays = []
    for name, kind, is_list in zip(table.columns, table.kinds, table.lists, strict=True):
        if name in wanted:
            type_ = pa.list_(arrow[kind]) if is_list else arrow[kind]
            arrays.append(pa.array([*map(attrgetter(name), batch)], type_))
    return pa.Table.from_arrays(arrays, names=[name for name in table.columns if name in wanted])


@dataclass(frozen=True, slots=True)
class Packed:
    """Many rows of one table as Arrow columns: a third of the memory of the rows themselves."""

    row_type: type[Row]
    columns: Any

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Packed:
        """Packs one row or more, all of one class."""
        row_type = type(rows[0])
        return cls(row_type, to_arrow(table_of(row_type), rows))


def joined(table: Table, rows: Sequence[Row], packed: Sequence[Packed]) -> Any:
    """Rows, then packed ones, as a single ``pyarrow.Table``."""
    from pipeline.arrow import pa

    parts = [to_arrow(table, rows)] if rows else []
    return pa.concat_tables([*parts, *(part.columns for part in packed)])


def from_tuples(table: Table, found: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Query results in column order as rows; lists become tuples."""
    row_type: Any = table.row_type
    if not any(table.lists):
        return [row_type(*values) for values in found]
    at = [index for index, is_list in enumerate(table.lists) if is_list]
    made = []
    for values in found:
        cells = list(values)
        for index in at:
            cells[index] = tuple(cells[index])
        made.append(row_type(*cells))
    return made


def _described(hint: Any) -> tuple[type, bool]:
    """The scalar type of a field and whether it holds several: ``tuple[str, ...]``, ``str | None`` or ``str``."""
    if get_origin(hint) is UnionType:
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is tuple:
        return get_args(hint)[0], True
    return hint, False


_TABLES = {row_type: _read(row_type) for row_type in ROW_TYPES}
