"""Brings the tables of a store to what this version knows, by numbered SQL files, each in a transaction of its own.

A migration's record is written in the migration's transaction, so a crash leaves it done and recorded, or neither. Bodies
go first: views of the store read them, and a transaction writes one file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from pipeline.errors import StoreError
from pipeline.store.connection import transaction
from pipeline.times import utc_now

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

DATABASES = ("bodies", "store")


@dataclass(frozen=True, slots=True)
class Migration:
    """``number`` counts from 1 within ``database``; ``name`` is the file's."""

    database: str
    number: int
    name: str
    sql: str


def migrations(database: str) -> Iterator[Migration]:
    """The migrations of a database that this version knows, in order."""
    folder = files("pipeline.store") / "migrations" / database
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".sql"):
            yield Migration(database, int(file.name[:4]), file.name, file.read_text(encoding="utf-8"))


def migrate(connection: DuckDBPyConnection) -> None:
    """Applies what is missing; raises ``StoreError`` when a newer mailtide has written these files."""
    pending: list[Migration] = []
    for database in DATABASES:
        known = list(migrations(database))
        version = schema_version(connection, database)
        if version > known[-1].number:
            raise StoreError(
                f"{database}.duckdb has schema {version}, this mailtide knows up to {known[-1].number}",
                hint="upgrade mailtide",
            )
        pending.extend(migration for migration in known if migration.number > version)
    for migration in pending:
        with transaction(connection, f"migration {migration.name}"):
            connection.execute(migration.sql)
            connection.execute(
                f"INSERT INTO {migration.database}.migrations VALUES (?, ?, ?)",
                [migration.number, migration.name, utc_now()],
            )


def schema_version(connection: DuckDBPyConnection, database: str = "store") -> int:
    """Number of the newest migration that a database has; 0 for an empty one."""
    tables = connection.execute(
        "SELECT count(*) FROM duckdb_tables() WHERE database_name = ? AND table_name = 'migrations'", [database]
    ).fetchall()
    if not tables[0][0]:
        return 0
    return int(connection.execute(f"SELECT coalesce(max(number), 0) FROM {database}.migrations").fetchall()[0][0])
