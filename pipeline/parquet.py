"""Parquet files as mailtide writes them: whole, private, and byte for byte the same for the same rows.

The same rows give the same bytes with the same version of pyarrow, whose name the format itself records in each file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.arrow import pa
from pipeline.errors import MailtideError
from pipeline.home import atomic_path, sha256_file

NOTE = b"mailtide"
"""Key under which a file's own note (JSON) lies in the Parquet footer."""

ROWS_PER_GROUP = 65_536


def open_writer(path: Path, schema: pa.Schema, *, plain: Sequence[str] = ()) -> pq.ParquetWriter:
    """A writer whose output depends on the rows alone. Columns named in ``plain`` are long texts or distinct in each row:
    no dictionary and no minima or maxima are kept for them, which would repeat their content in the footer."""
    encoded = [name for name in schema.names if name not in plain]
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        use_dictionary=encoded or False,
        write_statistics=encoded or False,
        store_schema=False,
    )


def with_note(table: pa.Table, note: Mapping[str, Any]) -> pa.Table:
    """``table`` with small JSON beside its rows, in place of any metadata it had."""
    return table.replace_schema_metadata({NOTE: json.dumps(note, sort_keys=True, separators=(",", ":"))})


def read_note(table: pa.Table) -> dict[str, Any]:
    """The note beside a table's rows; empty where there is none."""
    note: dict[str, Any] = json.loads((table.schema.metadata or {}).get(NOTE, b"{}"))
    return note


def write_table(path: Path, table: pa.Table, *, plain: Sequence[str] = ()) -> str:
    """Writes ``table`` and its note as a whole or not at all; returns the file's hex sha256."""
    with atomic_path(path) as temporary:
        with open_writer(temporary, table.schema, plain=plain) as writer:
            writer.write_table(table, row_group_size=ROWS_PER_GROUP)
            writer.add_key_value_metadata({key.decode(): value for key, value in (table.schema.metadata or {}).items()})
        return sha256_file(temporary)


def read_bytes(path: Path, sha256: str | None, error: type[MailtideError], *, hint: str) -> bytes:
    """The file's bytes, checked against ``sha256`` where given, so that what is checked is what is used."""
    try:
        data = path.read_bytes()
    except OSError as reason:
        raise error(f"{path} cannot be read ({reason.strerror or reason})", hint=hint) from reason
    if sha256 is not None and (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise error(f"{path} has sha256 {found[:12]}..., recorded is {sha256[:12] or 'none'}...", hint=hint)
    return data


def read_table(
    path: Path,
    schema: pa.Schema,
    sha256: str | None = None,
    *,
    error: type[MailtideError],
    hint: str,
    columns: Sequence[str] | None = None,
    later: Sequence[str] = (),
    encoded: Sequence[str] = (),
) -> pa.Table:
    """Reads a file that must hold ``schema``'s columns and types; anything else is an ``error`` that names it. Columns in
    ``later`` came with a later format: they are null where the file has none. Those in ``encoded`` come as a dictionary."""
    data = read_bytes(path, sha256, error, hint=hint)
    names = schema.names if columns is None else list(columns)
    wanted = pa.schema([_encoded(schema.field(name)) if name in encoded else schema.field(name) for name in names])
    try:
        with pq.ParquetFile(pa.BufferReader(data), read_dictionary=list(encoded)) as file:
            absent = set(later) - set(file.schema_arrow.names)
            table = file.read(columns=[name for name in names if name not in absent], use_threads=False)
        for name in names:
            if name in absent:
                table = table.append_column(schema.field(name), pa.nulls(table.num_rows, schema.field(name).type))
        return table.select(names).cast(wanted).replace_schema_metadata(table.schema.metadata)
    except (pa.ArrowException, OSError, KeyError) as reason:
        raise error(f"{path} is not what this version reads ({reason})", hint=hint) from reason


def _encoded(field: pa.Field) -> pa.Field:
    return field.with_type(pa.dictionary(pa.int32(), field.type))
