"""The two database files as one connection: who may open them, how they are tuned, and what their errors mean.

DuckDB lets one process hold a file and locks out all others, readers too; that lock is the lock on the store.
``duckdb`` is imported only when a store is opened, so that importing this package costs nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import StoreError, StoreHeldError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY_LIMIT = "256MB"
"""For DuckDB's buffers. What a larger query needs beyond it goes to a spill folder beside the store."""

CHECKPOINT_THRESHOLD = "32MB"
"""Size of the write-ahead log at which DuckDB folds it into the file by itself."""

ROW_GROUP = 8192
"""Rows that are compressed as one. Folding rewrites the last group: with DuckDB's 122,880 that came to stalls of six
seconds at 200,000 mails, and to a file of texts two thirds larger; with this it is half a second at any size."""

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
    """The sentence of a DuckDB error without the echo of the statement, and without an exclamation mark at its end."""
    return str(error).strip().partition("\n")[0].rstrip("!")


def connect(store: Path, bodies: Path, *, threads: int) -> DuckDBPyConnection:
    """Opens both files under the names ``store`` and ``bodies``; after this nothing else can be opened or loaded.

    Raises ``StoreHeldError`` when a process has the store open, ``StoreError`` when a file cannot be used.
    """
    import duckdb

    connection = open_unlocked({"store": store, "bodies": bodies}, threads=threads)
    try:
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        connection.execute("USE store")
    except duckdb.Error as error:
        connection.close()
        raise _refusal(store, error) from error
    return connection


def open_unlocked(files: Mapping[str, Path], *, threads: int = 1) -> DuckDBPyConnection:
    """Opens files under names, the first beside its spill folder. Other files can still be reached: for work that no
    question of people ever comes near. Files that DuckDB makes later (write-ahead log, spill) follow the umask of the
    process, so it is set to private here. Raises as :func:`connect` does."""
    import duckdb

    os.umask(0o077)
    file = next(iter(files.values()))
    connection = duckdb.connect(
        config={
            "threads": threads,
            "memory_limit": MEMORY_LIMIT,
            "checkpoint_threshold": CHECKPOINT_THRESHOLD,
            "temp_directory": str(file.with_name("spill")),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
        }
    )
    try:
        for name, file in files.items():
            connection.execute(f"ATTACH {literal(str(file))} AS {name} (ROW_GROUP_SIZE {ROW_GROUP})")
    except duckdb.Error as error:
        connection.close()
        raise _refusal(file, error) from error
    return connection


def cursor(connection: DuckDBPyConnection) -> DuckDBPyConnection:
    """A second connection to the open files."""
    with store_errors("open a cursor"):
        second = connection.cursor()
        second.execute("USE store")
        return second


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


def _refusal(file: Path, error: Exception) -> StoreError:
    message = str(error)
    if "Conflicting lock" in message or "Could not set lock" in message:
        holder = _HOLDER.search(message)
        return _held(file, int(holder.group(1)) if holder else None)
    if "already attached" in message:
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
