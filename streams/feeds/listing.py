"""What lies in a Maildir folder: mails by base name, in the order of delivery, with the file name that each has just now.

A mail keeps its base name for life. What other programs change is the folder (``new``, then ``cur``) and what stands behind
the base: flags (``:2,S``; with ``;`` or ``!`` where a file system takes no colon) and the UID that mbsync and OfflineIMAP
write into the name (``,U=7``). A listing is kept in a temporary database, so that a million names need no memory.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from pipeline.errors import SourceAway

FOLDERS = ("new", "cur")
PAGE = 1_000
CACHE_KIB = 16_384
SCANS = 4
FLAGS = re.compile(rb"(?::.*|[;!]2,[A-Za-z]*)\Z", re.DOTALL)
UID = re.compile(rb",U=\d+(?=,|\Z)")
TIME = re.compile(rb"(\d{9,10})(?=[._])(?:\.[^.]*?M(\d{1,6})(?!\d))?")
YEARS = range(315_532_800, 4_102_444_800)
"""Seconds that are taken for a time of delivery: 1980 to 2099."""

Known = Callable[[Sequence[str]], set[str]]
"""Which of these base names are known already."""


def base_name(name: bytes) -> str:
    """What stays of a file name whatever is done to the mail; bytes that are no UTF-8 are written as ``\\xNN``."""
    base = UID.sub(b"", FLAGS.sub(b"", name, count=1))
    return (base or name).decode("utf-8", "backslashreplace")


def delivered(name: bytes) -> int | None:
    """When the name says that the mail was delivered, in microseconds since 1970; None when it begins with no time."""
    found = TIME.match(name)
    if found is None or int(found[1]) not in YEARS:
        return None
    return int(found[1]) * 1_000_000 + int(found[2] or 0)


def stamp(path: Path) -> tuple[tuple[int, int, int], ...]:
    """Changes whenever a file of the folder appears, goes or is renamed: device, inode and time of change of ``new`` and
    ``cur``. Raises ``SourceAway`` when they are not there."""
    try:
        found = [(path / folder).stat() for folder in FOLDERS]
    except OSError as error:
        raise _away(path, error) from error
    return tuple((each.st_dev, each.st_ino, each.st_mtime_ns) for each in found)


class Listing:
    """The mails of one Maildir folder, as they lay when it was read last. Use ``close`` when done."""

    def __init__(self, path: Path, known: Known | None) -> None:
        """Mails that ``known`` answers for are left out; None lists all. Raises ``SourceAway`` without the folder."""
        self.readings = 0
        self._path = path
        self._known = known
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KIB}"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute("CREATE TABLE files (base TEXT PRIMARY KEY, at INTEGER NOT NULL, place BLOB NOT NULL)")
        self._db.execute("CREATE INDEX files_in_order ON files (at, base)")
        try:
            self.read()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._db.close()

    def read(self) -> None:
        """Lists the folder anew. What is renamed meanwhile may be missed by one look at a folder, so that it is looked at
        until it held still, at most a few times."""
        self._db.execute("DELETE FROM files")
        for _ in range(SCANS):
            before = stamp(self._path)
            self._scan()
            if stamp(self._path) == before:
                break
        self.readings += 1

    def place(self, base: str) -> bytes | None:
        """The path of a mail's file; None when there was none."""
        row = self._db.execute("SELECT place FROM files WHERE base = ?", (base,)).fetchone()
        return None if row is None else bytes(row[0])

    def in_order(self) -> Iterator[list[str]]:
        """Base names in pages, by time of delivery, then by name; ``read`` may be called between two pages."""
        last: tuple[int, str] = (-1 << 63, "")
        while True:
            rows = self._db.execute(
                "SELECT at, base FROM files WHERE (at, base) > (?, ?) ORDER BY at, base LIMIT ?", (*last, PAGE)
            ).fetchall()
            if not rows:
                return
            yield [base for _, base in rows]
            last = rows[-1]

    def _scan(self) -> None:
        # ``new`` first: a mail that is moved to ``cur`` meanwhile is then seen twice, not missed.
        for folder in FOLDERS:
            try:
                with os.scandir(os.fsencode(self._path / folder)) as entries:
                    files = (entry for entry in entries if not entry.name.startswith(b".") and entry.is_file())
                    while page := list(islice(files, PAGE)):
                        self._add(page)
            except OSError as error:
                raise _away(self._path, error) from error

    def _add(self, entries: Iterable[os.DirEntry[bytes]]) -> None:
        found = {base_name(entry.name): entry for entry in entries}
        for base in self._known(list(found)) if self._known else ():
            del found[base]
        self._db.execute("BEGIN")
        self._db.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", _rows(found))
        self._db.execute("COMMIT")


def _rows(found: dict[str, os.DirEntry[bytes]]) -> Iterator[tuple[str, int, bytes]]:
    for base, entry in found.items():
        at = delivered(entry.name)
        if at is None:
            try:
                at = entry.stat().st_mtime_ns // 1_000
            except FileNotFoundError:
                continue
        yield base, at, entry.path


def _away(path: Path, error: OSError) -> SourceAway:
    return SourceAway(
        f"the Maildir {path} cannot be listed: {error.strerror}", hint="bring the folder back; it is tried again"
    )
