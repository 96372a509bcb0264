"""What people may ask of a store in SQL: anything that only reads, for a while, and so many rows.

No single guard is enough. A statement of type SELECT may hold a deleting CTE, which the read-only transaction refuses; that
transaction lets ATTACH, DETACH and CHECKPOINT through, which the type refuses; and files are out of reach because the
connection was locked when the store was opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Timer
from typing import TYPE_CHECKING, Any

from pipeline.errors import StoreError, UsageError
from pipeline.store.connection import first_line

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pipeline.store.store import Store

ROW_LIMIT = 10_000
SECONDS = 30.0

_EXPLAIN = re.compile(r"\s*EXPLAIN\s+(ANALYZE\s+)?(\([^()]*\)\s*)?", re.IGNORECASE)
_BARE_AT = re.compile(r"(?<![\w\".])at(?![\w\"])", re.IGNORECASE)
_RULE = "exactly one SELECT (or EXPLAIN of one) can be run"


@dataclass(frozen=True, slots=True)
class Result:
    """Rows in the order of ``columns``; ``truncated`` when there were more than the limit."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    truncated: bool


def run_people_sql(store: Store, sql: str, *, row_limit: int = ROW_LIMIT, seconds: float = SECONDS) -> Result:
    """Runs one reading statement on a cursor of its own, also from another thread than the store's.

    Raises ``UsageError`` for a statement that is refused or wrong, ``StoreError`` when it takes longer than ``seconds`` or
    needs more memory than the store has.
    """
    with store.cursor() as cursor, _answers(sql):
        _check(cursor, sql)
        with reading(cursor), _limited(cursor, seconds) as expired:
            cursor.execute(sql)
            if expired.is_set():
                raise _too_slow(seconds)
            columns = tuple(column[0] for column in cursor.description)
            rows: list[tuple[Any, ...]] = cursor.fetchmany(row_limit + 1)
            if expired.is_set():
                raise _too_slow(seconds)
    return Result(columns, rows[:row_limit], len(rows) > row_limit)


@contextmanager
def reading(cursor: DuckDBPyConnection) -> Iterator[None]:
    """A transaction that cannot write and sees one state of the store throughout."""
    cursor.execute("BEGIN TRANSACTION READ ONLY")
    try:
        yield
    finally:
        cursor.execute("ROLLBACK")


def _check(cursor: DuckDBPyConnection, sql: str) -> None:
    from duckdb import StatementType

    statements = cursor.extract_statements(sql)
    if len(statements) != 1:
        raise UsageError(f"{len(statements)} statements were given", hint=_RULE)
    (statement,) = statements
    if statement.type == StatementType.EXPLAIN:
        explained = _EXPLAIN.match(sql)
        statements = cursor.extract_statements(sql[explained.end() :]) if explained else []
        if len(statements) != 1:
            raise UsageError("the EXPLAIN cannot be read", hint="put comments behind it")
        (statement,) = statements
    if statement.type != StatementType.SELECT:
        raise UsageError(f"a statement of type {statement.type.name} is refused", hint=_RULE)


@contextmanager
def _limited(cursor: DuckDBPyConnection, seconds: float) -> Iterator[Event]:
    """Interrupts the cursor when the time is up, and says so by the event."""
    from duckdb import InterruptException

    expired = Event()

    def interrupt() -> None:
        expired.set()
        cursor.interrupt()

    timer = Timer(seconds, interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield expired
    except InterruptException as error:
        if expired.is_set():
            raise _too_slow(seconds) from error
        raise
    finally:
        timer.cancel()
        timer.join()


def _too_slow(seconds: float) -> StoreError:
    return StoreError(f"the query took longer than {seconds:g} s", hint="narrow it, or export the view and query the file")


@contextmanager
def _answers(sql: str) -> Iterator[None]:
    import duckdb

    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise StoreError(f"the query needs too much memory: {first_line(error)}", hint="narrow it") from error
    except duckdb.ParserException as error:
        hint = 'the column is "at", in double quotes: at alone is a word of SQL' if _BARE_AT.search(sql) else ""
        raise UsageError(first_line(error), hint=hint) from error
    except duckdb.Error as error:
        raise UsageError(first_line(error)) from error
