"""A feed's journal: which number was given to which mail, noted durably before the mail is handed on.

Numbers are contiguous from 1 and never given to another mail. After a crash the owner says how far it took them, and the
feed hands on the rest under the numbers that they have.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType

from pipeline.errors import FeedError
from pipeline.home import Home, fsync_dir, private_dir

MAIL = "mail"
EPOCH = datetime(1970, 1, 1)
PAGE = 1_000
VERSION = 1
SCHEMA = """
CREATE TABLE notes (
    number INTEGER PRIMARY KEY,
    kind   TEXT    NOT NULL,
    cursor TEXT    NOT NULL,
    digest BLOB    NOT NULL,
    at     INTEGER NOT NULL    -- microseconds since 1970
) STRICT;
CREATE TRIGGER notes_are_not_changed BEFORE UPDATE ON notes BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER notes_are_not_deleted BEFORE DELETE ON notes BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Note:
    """What is noted of an item. ``kind`` is ``mail``, a ``TickKind``, or the feed's own word; ``cursor`` finds the item
    again; ``digest`` is the hex sha256 of the bytes handed on ("" for a tick); ``at`` is naive UTC."""

    kind: str
    cursor: str
    digest: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Noted:
    """A note and its number."""

    number: int
    note: Note


class Numbering:
    """The journal of one feed, held by one process at a time. Use it in ``with``, or ``close`` it."""

    def __init__(self, home: Home, feed: str) -> None:
        """Opens or makes ``<home>/feeds/<feed>.sqlite``; raises ``FeedError`` when another process has it open."""
        self._feed = feed
        self._path = home.feeds / f"{feed}.sqlite"
        private_dir(home.feeds)
        if not self._path.exists():
            os.close(os.open(self._path, os.O_CREAT | os.O_WRONLY, 0o600))
            fsync_dir(home.feeds)
        with self._mapped():
            self._db = sqlite3.connect(self._path, timeout=1.0, isolation_level=None, check_same_thread=False)
        try:
            with self._mapped():
                self._prepare()
        except FeedError:
            self._db.close()
            raise

    def __enter__(self) -> Numbering:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def path(self) -> Path:
        return self._path

    def close(self) -> None:
        with self._mapped():
            self._db.close()

    def note(self, notes: Sequence[Note], *, floor: int = 0, state: Mapping[str, str] | None = None) -> list[Noted]:
        """Numbers the notes and keeps them, with changes of ``state``, in one transaction: durable on return.

        ``floor`` is the last number that the owner took. It is above the last one noted only when the journal was lost or
        put back from an older copy; numbers then go on after it, so that none ever stands for two mails.
        """
        with self._mapped(), self._transaction():
            first = max(self._last_number(), floor) + 1
            noted = [Noted(first + index, note) for index, note in enumerate(notes)]
            self._db.executemany("INSERT INTO notes VALUES (?, ?, ?, ?, ?)", map(_row, noted))
            self._db.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", (state or {}).items())
        return noted

    def after(self, number: int) -> Iterator[Noted]:
        """What was noted above ``number``, in order, a page at a time."""
        while True:
            with self._mapped():
                rows = self._db.execute(
                    "SELECT * FROM notes WHERE number > ? ORDER BY number LIMIT ?", (number, PAGE)
                ).fetchall()
            yield from map(_noted, rows)
            if len(rows) < PAGE:
                return
            number = rows[-1][0]

    def index_cursors(self) -> None:
        """Makes ``known`` quick, for feeds whose mails are found by cursor rather than in order."""
        with self._mapped():
            self._db.execute("CREATE INDEX IF NOT EXISTS notes_by_cursor ON notes (cursor)")

    def known(self, cursors: Sequence[str]) -> set[str]:
        """Those of the cursors that a note has, whatever its number; needs ``index_cursors`` once."""
        found: set[str] = set()
        with self._mapped():
            for start in range(0, len(cursors), PAGE):
                page = cursors[start : start + PAGE]
                marks = ", ".join("?" * len(page))
                found.update(
                    cursor for (cursor,) in self._db.execute(f"SELECT cursor FROM notes WHERE cursor IN ({marks})", page)
                )
        return found

    def last(self) -> Noted | None:
        """The newest note."""
        return self._newest("TRUE")

    def last_mail(self) -> Noted | None:
        """The newest note that is no tick."""
        return self._newest("digest <> x''")

    def _newest(self, where: str) -> Noted | None:
        with self._mapped():
            row = self._db.execute(f"SELECT * FROM notes WHERE {where} ORDER BY number DESC LIMIT 1").fetchone()
        return None if row is None else _noted(row)

    def state(self) -> dict[str, str]:
        """What the feed keeps about its source, by name."""
        with self._mapped():
            return dict(self._db.execute("SELECT name, value FROM state").fetchall())

    def _last_number(self) -> int:
        (last,) = self._db.execute("SELECT coalesce(max(number), 0) FROM notes").fetchone()
        return int(last)

    def _prepare(self) -> None:
        # One fsync per commit (WAL), never fewer (FULL); the lock is taken with the first statement and kept, so that
        # two processes cannot number the same mail at once.
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            with self._transaction():
                for statement in _statements(SCHEMA):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {VERSION}")
        elif version != VERSION:
            raise FeedError(
                f"the journal {self._path} has format {version}, this program writes {VERSION}",
                hint="use the version of mailtide that wrote it, or a newer one",
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk has ended it already
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """SQLite's errors as ``FeedError``."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise FeedError(
                    f"another process is reading feed {self._feed}", hint="wait for it to finish, or stop it"
                ) from error
            raise FeedError(
                f"the journal {self._path} cannot be used: {error}", hint="check disk and permissions"
            ) from error
        except sqlite3.Error as error:
            raise FeedError(
                f"the journal {self._path} is damaged: {error}",
                hint="put it back from a backup, or remove it: the mail is then read again and counts as duplicates",
            ) from error


def _row(noted: Noted) -> tuple[int, str, str, bytes, int]:
    note = noted.note
    at = (note.at - EPOCH) // timedelta(microseconds=1)
    return noted.number, note.kind, note.cursor, bytes.fromhex(note.digest), at


def _noted(row: tuple[int, str, str, bytes, int]) -> Noted:
    number, kind, cursor, digest, at = row
    return Noted(number, Note(kind, cursor, digest.hex(), EPOCH + timedelta(microseconds=at)))


def _statements(script: str) -> Iterator[str]:
    """The statements of a script, one by one: ``executescript`` would commit by itself."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
