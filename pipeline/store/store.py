"""A home's store: the only door to its two DuckDB files, open in one process at a time."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.arrival.people import PeopleKey
from pipeline.errors import ConfigError, StoreError, UsageError
from pipeline.home import fsync_dir, private_dir
from pipeline.store import append, lookup, people_sql, reading
from pipeline.store.connection import connect, cursor, store_errors
from pipeline.store.frozen import disagreements, freeze, frozen_settings, frozen_versions
from pipeline.store.rows import JournalRow, OutboxRow, Row
from pipeline.store.schema import migrate, schema_version
from pipeline.store.tables import Packed, from_tuples, quoted, table_of
from pipeline.versions import Versions

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from pyarrow import RecordBatch

    from pipeline.arrival.threads import Known, Needs
    from pipeline.config.settings import Settings
    from pipeline.domain import StoredMessage
    from pipeline.events import Event
    from pipeline.home import Home

R = TypeVar("R", bound=Row)

VIEW_PAGE = 10_000
"""Rows of a view that are held at once."""

THREADS = 1
"""A batch is small and its queries are short: a second thread costs more in hand-over than it saves."""


class Store:
    """An open store. One thread uses it; people's queries get cursors of their own and may come from others."""

    def __init__(self, connection: DuckDBPyConnection, people: PeopleKey) -> None:
        self._connection = connection
        self._people = people

    @classmethod
    def create(
        cls, home: Home, settings: Settings, people: PeopleKey, versions: Versions, *, threads: int = THREADS
    ) -> Store:
        """Makes the store of a home, its files and its people key, and freezes what freezes.

        The files are made in a folder of their own and moved, ``store.duckdb`` last: a home has a whole store or none.
        """
        if home.store.exists():
            raise UsageError(f"{home.root} holds a store already", hint="name another folder with --home")
        values = frozen_settings(settings) | frozen_versions(versions)
        folder = home.root / ".creating"
        shutil.rmtree(folder, ignore_errors=True)
        private_dir(folder)
        connection = connect(folder / home.store.name, folder / home.bodies.name, threads=threads)
        try:
            migrate(connection)
            with store_errors("freeze settings"):
                freeze(connection, values)
        finally:
            connection.close()
        people.write(home.people_key)
        for file in (home.bodies, home.store):
            (folder / file.name).replace(file)
        fsync_dir(home.root)
        folder.rmdir()
        return cls.open(home, settings, versions, threads=threads)

    @classmethod
    def open(cls, home: Home, settings: Settings | None, versions: Versions | None, *, threads: int = THREADS) -> Store:
        """Opens the store of a home, for this process alone.

        Raises ``UsageError`` where there is none, ``StoreHeldError`` when a process has it open, ``StoreError`` when it is
        damaged or newer than this mailtide, and ``ConfigError`` with every frozen value that ``settings`` or ``versions``
        would change; None asks for no such check.
        """
        if not home.store.exists():
            raise UsageError(f"there is no mailtide home at {home.root}", hint="make one with `mailtide init`")
        if not home.bodies.exists():
            raise StoreError(f"{home.bodies} is missing", hint="restore it and store.duckdb from one backup")
        connection = connect(home.store, home.bodies, threads=threads)
        try:
            with store_errors("open the store"):
                migrate(connection)
                _require_agreement(connection, settings, versions)
            return cls(connection, PeopleKey.read(home.people_key))
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Closes both files; what the write-ahead logs hold is folded in."""
        with store_errors("close the store"):
            self._connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def people(self) -> PeopleKey:
        """The key that this home's people are hashed with."""
        return self._people

    @property
    def schema_version(self) -> int:
        """Number of the newest migration applied to ``store.duckdb``."""
        with store_errors("read the schema version"):
            return schema_version(self._connection)

    def append(self, rows: Iterable[Row | Packed]) -> None:
        """Appends all rows durably or none, each table's in the order given, packed ones after the others.

        Texts and people that are stored already are left as they are; any other repeated key raises ``StoreError``.
        """
        append.append_rows(self._connection, rows)

    def fetch(self, row_type: type[R], where: str = "", params: Sequence[object] = (), order: str = "") -> list[R]:
        """Rows of a table that satisfy an SQL condition, in the order of an SQL expression, else as they were appended.

        ``at`` is a word of the grammar: write ``"at"``.
        """
        table = table_of(row_type)
        condition = f" WHERE {where}" if where else ""
        sql = f"SELECT {quoted(table.columns)} FROM {table.name}{condition} ORDER BY {order or 'rowid'}"
        return from_tuples(table, self.query(sql, params))

    def query(self, sql: str, params: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Result of one SELECT of our own; what people type goes through :func:`run_people_sql`."""
        with store_errors("query"):
            result: list[tuple[Any, ...]] = self._connection.execute(sql, list(params)).fetchall()
            return result

    def scalar(self, sql: str, params: Sequence[object] = ()) -> Any:
        """First column of the first row of a SELECT; None when there is no row."""
        found = self.query(sql, params)
        return found[0][0] if found else None

    def next_ordinal(self, row_type: type[OutboxRow] | type[JournalRow]) -> int:
        """The ordinal of the next row of a table; its first is 1."""
        return int(self.scalar(f"SELECT coalesce(max(ordinal), 0) + 1 FROM {row_type.TABLE}"))

    def outbox_rows(self, events: Iterable[Event]) -> list[OutboxRow]:
        """Events as rows of the outbox, numbered on from its last; append them before asking again."""
        return [
            OutboxRow(ordinal, event.id, event.type.value, event.key, event.data, event.time)
            for ordinal, event in enumerate(events, self.next_ordinal(OutboxRow))
        ]

    def lookup(self, mailbox: str, needs: Needs) -> Known:
        """What is stored about ``needs``: all that placing a batch of mail has to know."""
        return lookup.lookup(self._connection, mailbox, needs)

    def iter_threads(
        self, mailbox: str, window_idx: int, overlap: int
    ) -> Iterator[tuple[list[StoredMessage], list[StoredMessage]]]:
        """Each thread with mail in a window: at most ``overlap`` newest earlier messages, the window's messages."""
        return reading.iter_threads(self._connection, mailbox, window_idx, overlap)

    def all_messages(self, mailbox: str, first: int = 0) -> Iterator[StoredMessage]:
        """Every message of a mailbox from the ordinal ``first`` on, in the order of arrival, read page by page."""
        return reading.all_messages(self._connection, mailbox, first)

    def messages_by_key(self, mailbox: str, keys: Iterable[str]) -> dict[str, StoredMessage]:
        """Messages by their keys; unknown keys are left out."""
        return reading.messages_by_key(self._connection, mailbox, keys)

    def read_view(self, view: str) -> Iterator[RecordBatch]:
        """All rows of a view as of now, in Arrow batches of one schema; the first may be empty, but is always there."""
        import pyarrow as pa

        with (
            self.cursor() as cursor,
            store_errors(f"read {view}"),
            people_sql.reading(cursor),
            cursor.sql(f"SELECT * FROM {view}").to_arrow_reader(VIEW_PAGE) as batches,
        ):
            yield pa.RecordBatch.from_pylist([], batches.schema)
            yield from batches

    def answer_sql(
        self, sql: str, *, row_limit: int = people_sql.ROW_LIMIT, seconds: float = people_sql.SECONDS
    ) -> people_sql.Result:
        """What people type, answered; see :func:`pipeline.store.people_sql.run_people_sql`."""
        return people_sql.run_people_sql(self, sql, row_limit=row_limit, seconds=seconds)

    def checkpoint(self) -> None:
        """Folds the write-ahead logs into the files."""
        with store_errors("checkpoint"):
            self._connection.execute("CHECKPOINT bodies")
            self._connection.execute("CHECKPOINT store")

    @contextmanager
    def beside(self) -> Iterator[Store]:
        """A second connection to the open files as a store of its own, for another thread of this process. Several may read
        at once; only one thread at a time may append, which is for them to agree on."""
        with self.cursor() as second:
            yield Store(second, self._people)

    def require_agreement(self, settings: Settings | None, versions: Versions | None) -> None:
        """Raises ``ConfigError`` with every frozen value that ``settings`` or ``versions`` would change."""
        with store_errors("read what froze with the store"):
            _require_agreement(self._connection, settings, versions)

    @contextmanager
    def cursor(self) -> Iterator[DuckDBPyConnection]:
        """A second connection to the open files, for queries beside the owner's work."""
        second = cursor(self._connection)
        try:
            yield second
        finally:
            second.close()


def _require_agreement(connection: DuckDBPyConnection, settings: Settings | None, versions: Versions | None) -> None:
    problems = disagreements(connection, settings, versions)
    if problems:
        raise ConfigError(problems, hint="what froze with the store stays: set it back, or make another home")
