"""The two database files as one connection: who may open them, how they are tuned, and what their errors mean.

DuckDB lets one process hold a file and locks out all others, readers too; that lock is the lock on the store.
``duckdb`` is imported only when a store is opened, so that importing this package costs nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import StoreError, StoreHeldError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY_LIMIT = "256MB"
"""For DuckDB's buffers. What a larger query needs beyond it goes to a spill folder beside the store."""

CHECKPOINT_THRESHOLD = "64MB"
"""Size of the write-ahead log at which DuckDB folds it into the file by itself."""

_HOLDER = re.compile(r"PID (\d+)")


@contextmanager
def store_errors(action: str) -> Iterator[None]:
    """Turns whatever DuckDB raises into a ``StoreError`` that says what was being done."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise StoreError(f"{action}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """The sentence of a DuckDB error without the echo of the statement."""
    return str(error).strip().partition("\n")[0]


def connect(store: Path, bodies: Path, *, threads: int, existing: bool = True) -> DuckDBPyConnection:
    """Opens both files, ``bodies`` attached under that name; after this nothing else can be opened or loaded.

    Files that DuckDB makes later (write-ahead log, spill) follow the umask of the process, so it is set to private here.
    Raises ``StoreHeldError`` when a process has the store open, ``StoreError`` when a file cannot be used.
    """
    os.umask(0o077)
    connection = _open(store, bodies, threads, existing)
    try:
        connection.execute(f"ATTACH {literal(str(bodies))} AS bodies")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
    except Exception as error:
        connection.close()
        raise _refusal(bodies, error) from error
    return connection


def literal(text: str) -> str:
    """``text`` as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


@contextmanager
def transaction(connection: DuckDBPyConnection, action: str) -> Iterator[None]:
    """All of the block, durably, or nothing of it."""
    with store_errors(action):
        connection.execute("BEGIN TRANSACTION")
        try:
            yield
        except BaseException:
            _roll_back(connection)
            raise
        connection.execute("COMMIT")


def _roll_back(connection: DuckDBPyConnection) -> None:
    import duckdb

    try:
        connection.execute("ROLLBACK")
    except duckdb.Error:  # the transaction is gone already, as after a full disk; what raised tells more
        return


def _open(store: Path, bodies: Path, threads: int, existing: bool) -> DuckDBPyConnection:
    import duckdb

    if existing and not bodies.exists():
        raise StoreError(f"{bodies} is missing", hint="it belongs to store.duckdb: restore both from the same backup")
    config = {
        "threads": threads,
        "memory_limit": MEMORY_LIMIT,
        "checkpoint_threshold": CHECKPOINT_THRESHOLD,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "python_enable_replacements": False,
    }
    try:
        connection = duckdb.connect(str(store), config=config)
    except duckdb.Error as error:
        raise _refusal(store, error) from error
    # Within one process DuckDB hands out the instance that is open already, with all that is attached to it.
    if connection.execute("SELECT count(*) FROM duckdb_databases() WHERE database_name = 'bodies'").fetchall()[0][0]:
        connection.close()
        raise _held(store, os.getpid())
    return connection


def _refusal(file: Path, error: Exception) -> StoreError:
    message = str(error)
    if "Conflicting lock" in message or "Could not set lock" in message:
        holder = _HOLDER.search(message)
        return _held(file, int(holder.group(1)) if holder else None)
    if "different configuration" in message:
        return _held(file, os.getpid())
    return StoreError(
        f"{file} cannot be opened: {first_line(error)}", hint="if it is damaged, restore the home from a backup"
    )


def _held(file: Path, pid: int | None) -> StoreHeldError:
    if pid is None:
        who, hint = "another process", "wait for it to end, or stop it"
    elif pid == os.getpid():
        who, hint = "this process already", "close the store before opening it again"
    else:
        command = _command_line(pid)
        who = f"process {pid} ({command})" if command else f"process {pid}"
        hint = f"wait for it to end, or stop it with `kill {pid}`"
    return StoreHeldError(f"{file} is held by {who}", pid=pid, hint=hint)


def _command_line(pid: int) -> str:
    """The command line of a process, shortened; "" where the system does not tell."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    line = " ".join(word.decode(errors="replace") for word in words if word)
    return line if len(line) <= 100 else line[:99] + "…"
