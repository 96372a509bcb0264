"""``bodies.duckdb`` written anew without what is to be erased: DuckDB leaves the bytes of deleted rows in its file, and in
the write-ahead log, so that a deletion alone would erase nothing.

The new file takes the old one's name in one step. Meanwhile the lock on ``store.duckdb`` keeps every other process out.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.errors import StoreError
from pipeline.home import Home, fsync_dir, private_dir
from pipeline.store.connection import open_unlocked, store_errors
from pipeline.store.schema import migrations

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FOLDER = ".erasing"
"""Where the new file is written; what a kill leaves there is removed by the next attempt."""


@dataclass(frozen=True, slots=True)
class Gone:
    """What is to be erased of the bodies, unless a message that is not erased needs it too: ``texts`` by sha256, of which
    those that map to True are erased although they are somebody's full text, as long as they are nobody's own words;
    ``people`` by keyed hash, ``raws`` (bytes of dead letters) by sha256."""

    texts: Mapping[str, bool] = field(default_factory=dict)
    people: frozenset[str] = frozenset()
    raws: frozenset[str] = frozenset()


_OWNED = """
CREATE TEMP TABLE alive AS
SELECT sender_key, sender_name_key, subject_key, text_sha, own_sha
FROM store.message_rows AS m ANTI JOIN store.erased_rows AS e ON e.mailbox = m.mailbox AND e.message_key = m.message_key;
CREATE TEMP TABLE owned_texts AS
SELECT own_sha AS sha FROM alive
UNION SELECT text_sha FROM alive WHERE text_sha NOT IN (SELECT sha FROM gone_texts WHERE anyway)
UNION SELECT correction_sha FROM store.feedback_rows WHERE correction_sha NOT IN (SELECT sha FROM gone_texts WHERE anyway);
CREATE TEMP TABLE owned_people AS
SELECT sender_key AS key FROM alive UNION SELECT sender_name_key FROM alive UNION SELECT subject_key FROM alive;
"""

_KEPT = {
    "texts": "sha256 NOT IN (SELECT sha FROM gone_texts ANTI JOIN owned_texts USING (sha))",
    "people": "key NOT IN (SELECT key FROM gone_people ANTI JOIN owned_people USING (key))",
    "raws": "sha256 NOT IN (SELECT sha FROM gone_raws)",
}


def rewrite_bodies(home: Home, gone: Gone) -> None:
    """Writes the file anew without what is ``gone`` and nobody else's. Doing it again changes nothing.

    The store must not be open in this process. Raises ``StoreHeldError`` while another one has it, ``StoreError`` when
    there is no room for the copy; the old file then stays as it was.
    """
    folder = home.root / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    private_dir(folder)
    written = folder / home.bodies.name
    try:
        with store_errors("write bodies.duckdb anew"):
            connection = open_unlocked({"store": home.store, "former": home.bodies, "bodies": written})
            try:
                _copy(connection, gone)
                for name in ("former", "bodies"):  # what a write-ahead log holds is folded in, and the log is removed
                    connection.execute(f"CHECKPOINT {name}")
                    connection.execute(f"DETACH {name}")
                _require_no_log(home)
                written.replace(home.bodies)
                fsync_dir(home.root)
            finally:
                connection.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(home.root / "spill", ignore_errors=True)


def _copy(connection: DuckDBPyConnection, gone: Gone) -> None:
    from pipeline.arrow import pa

    for migration in migrations("bodies"):
        connection.execute(migration.sql)
    tables = {
        "gone_texts": pa.table(
            {"sha": pa.array(gone.texts.keys(), pa.string()), "anyway": pa.array(gone.texts.values(), pa.bool_())}
        ),
        "gone_people": pa.table({"key": pa.array(gone.people, pa.string())}),
        "gone_raws": pa.table({"sha": pa.array(gone.raws, pa.string())}),
    }
    for name, table in tables.items():
        connection.register(name, table)
    connection.execute(_OWNED)
    connection.execute("INSERT INTO bodies.migrations SELECT * FROM former.migrations ORDER BY number")
    for table, kept in _KEPT.items():
        connection.execute(f"INSERT INTO bodies.{table} SELECT * FROM former.{table} WHERE {kept} ORDER BY rowid")


def _require_no_log(home: Home) -> None:
    log = home.bodies.with_name(home.bodies.name + ".wal")
    if log.exists():
        raise StoreError(f"{log} is still there", hint="run the same command again")
