"""People's SQL reads, for a while, and so many rows; it changes nothing and reaches nothing outside the store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import MailtideError, StoreError, UsageError
from pipeline.store import Store
from pipeline.store.people_sql import run_people_sql
from pipeline.store.rows import TakenRow
from tests.support.rows import START, flat, message, new_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with new_store(tmp_path_factory.mktemp("people") / "home") as made:
        made.append([*flat(message(ordinal) for ordinal in range(20)), TakenRow("main", "feed", 20, START)])
        yield made


def whole(store: Store) -> object:
    """What a statement could have changed: rows of both files, tables, settings, what is attached."""
    return (
        store.query("SELECT count(*) FROM message_rows"),
        store.query("SELECT count(*) FROM bodies.texts"),
        store.query("SELECT count(*) FROM bodies.people"),
        store.query("SELECT database_name, table_name, sql FROM duckdb_tables() ORDER BY ALL"),
        store.query("SELECT view_name, sql FROM duckdb_views() ORDER BY ALL"),
        store.query("SELECT database_name FROM duckdb_databases() ORDER BY ALL"),
        store.query("SELECT name, value FROM duckdb_settings() ORDER BY ALL"),
    )


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM messages",
        "  -- how many\nSELECT count(*) /* of them */ FROM messages; -- that is all",
        "FROM messages SELECT count(*)",
        "WITH m AS (SELECT * FROM messages) SELECT count(*) FROM m",
        "SELECT count(*) FROM message_rows JOIN bodies.texts ON sha256 = text_sha",
        "SELECT 20 WHERE ';' = ';' AND 'DELETE FROM taken' <> ''",
    ],
)
def test_what_reads_is_answered(store: Store, sql: str) -> None:
    assert run_people_sql(store, sql).rows == [(20,)]


@pytest.mark.parametrize("sql", ["EXPLAIN SELECT 1", "explain analyze SELECT 1", " EXPLAIN (FORMAT json) SELECT 1;"])
def test_a_select_can_be_explained(store: Store, sql: str) -> None:
    assert run_people_sql(store, sql).columns == ("explain_key", "explain_value")


REFUSED = [
    # writes inside a SELECT
    "WITH gone AS (DELETE FROM bodies.texts RETURNING *) SELECT * FROM gone",
    "WITH gone AS (DELETE FROM message_rows RETURNING *) SELECT * FROM gone",
    "WITH new AS (INSERT INTO taken VALUES ('m', 'f', 1, now()::TIMESTAMP) RETURNING *) SELECT * FROM new",
    "WITH new AS (UPDATE bodies.people SET value = 'x' RETURNING *) SELECT * FROM new",
    "SELECT * FROM query('DELETE FROM bodies.texts')",
    "EXPLAIN ANALYZE WITH gone AS (DELETE FROM bodies.texts RETURNING *) SELECT * FROM gone",
    # writes as such, and what a read-only transaction would let through
    "DELETE FROM bodies.texts",
    "INSERT INTO taken VALUES ('m', 'f', 1, now()::TIMESTAMP)",
    "UPDATE bodies.people SET value = 'x'",
    "DROP VIEW messages",
    "CREATE TABLE mine (x INTEGER)",
    "CREATE TEMP TABLE mine (x INTEGER)",
    "ATTACH ':memory:' AS more",
    "DETACH bodies",
    "USE bodies",
    "CHECKPOINT",
    "FORCE CHECKPOINT",
    "VACUUM",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "PREPARE mine AS SELECT 1",
    "EXECUTE mine",
    "CALL pragma_version()",
    "PRAGMA database_list",
    "PRAGMA memory_limit='1GB'",
    "SET memory_limit = '1GB'",
    "SET VARIABLE x = 1",
    "RESET threads",
    "SELECT * FROM enable_logging()",
    # an EXPLAIN of more than a SELECT
    "EXPLAIN DELETE FROM bodies.texts",
    "EXPLAIN ANALYZE DELETE FROM bodies.texts",
    "EXPLAIN ANALYZE CHECKPOINT",
    "EXPLAIN ANALYZE CREATE TEMP TABLE mine (x INTEGER)",
    "EXPLAIN ANALYZE SET threads = 4",
    "EXPLAIN (ANALYZE) DELETE FROM bodies.texts",
    "EXPLAIN /* SELECT */ ANALYZE DELETE FROM bodies.texts",
    "/* EXPLAIN SELECT 1 */ EXPLAIN ANALYZE DELETE FROM bodies.texts",
    # files, extensions and the process around it
    "COPY messages TO '{folder}/out.csv'",
    "COPY (SELECT 1) TO '{folder}/out.parquet'",
    "EXPLAIN ANALYZE COPY messages TO '{folder}/out.csv'",
    "EXPORT DATABASE '{folder}/out'",
    "SELECT * FROM read_csv('{folder}/secret.csv')",
    "SELECT * FROM read_text('{folder}/secret.csv')",
    "SELECT * FROM read_blob('{folder}/secret.csv')",
    "SELECT * FROM sniff_csv('{folder}/secret.csv')",
    "SELECT * FROM query('SELECT * FROM read_text(''{folder}/secret.csv'')')",
    "SELECT * FROM '{folder}/secret.csv'",
    "SELECT * FROM glob('{folder}/*')",
    "SELECT * FROM duckdb_secrets()",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SELECT * FROM sql_auto_complete('sel')",
    "SELECT * FROM frame",
    # other than one statement
    "",
    "-- nothing",
    ";",
    "SELECT 1; SELECT 2",
    "SELECT 1; DELETE FROM bodies.texts",
    "SELECT 1 /* ; */; -- and\nDELETE FROM bodies.texts",
    "EXPLAIN SELECT 1; DELETE FROM bodies.texts",
    # and what is no SQL
    "SELEC 1",
    "SELECT nothing FROM messages",
]


@pytest.mark.parametrize("sql", REFUSED)
def test_what_does_more_than_read_is_refused(store: Store, tmp_path: Path, sql: str) -> None:
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    frame = {"a": [1]}  # a Python variable of a caller must not be readable as a table
    before = whole(store)
    with pytest.raises(UsageError):
        run_people_sql(store, sql.replace("{folder}", str(tmp_path)))
    assert whole(store) == before
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]
    assert frame == {"a": [1]}


@pytest.mark.parametrize("sql", ["SELECT * FROM checkpoint()", "SELECT * FROM force_checkpoint()"])
def test_a_checkpoint_by_a_function_changes_and_breaks_nothing(store: Store, sql: str) -> None:
    before = whole(store)
    with store.cursor() as writer:
        writer.execute("BEGIN")
        writer.execute("INSERT INTO taken VALUES ('m', 'f', 1, now()::TIMESTAMP)")
        try:
            run_people_sql(store, sql)
        except MailtideError as error:
            assert "checkpoint" in str(error).lower()
        assert writer.execute("SELECT count(*) FROM taken WHERE mailbox = 'm'").fetchall() == [(1,)]
        writer.execute("ROLLBACK")
    assert whole(store) == before


def test_rows_are_limited_and_it_says_so(store: Store) -> None:
    exact = run_people_sql(store, "SELECT arrival_ordinal AS n FROM messages ORDER BY n", row_limit=20)
    assert (exact.columns, len(exact.rows), exact.truncated) == (("n",), 20, False)
    fewer = run_people_sql(store, "SELECT arrival_ordinal AS n FROM messages ORDER BY n", row_limit=3)
    assert (fewer.rows, fewer.truncated) == ([(0,), (1,), (2,)], True)
    endless = run_people_sql(store, "SELECT * FROM range(1_000_000_000_000)", row_limit=2)
    assert (endless.rows, endless.truncated) == ([(0,), (1,)], True)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM range(1_000_000_000) a, range(1_000_000_000) b",
        "SELECT a.range FROM range(1_000_000_000_000) a WHERE a.range < 0",
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r",
    ],
)
def test_time_is_limited(store: Store, sql: str) -> None:
    with pytest.raises(StoreError, match=r"longer than 0\.2 s"):
        run_people_sql(store, sql, seconds=0.2)
    assert run_people_sql(store, "SELECT 1").rows == [(1,)]


def test_memory_is_limited(store: Store) -> None:
    with pytest.raises(StoreError, match="too much memory"):
        run_people_sql(store, "SELECT length(list(repeat('x', 1000) || range)::VARCHAR) FROM range(10_000_000)")
    store.append([TakenRow("memory", "feed", 1, START)])


def test_the_column_at_is_explained(store: Store) -> None:
    with pytest.raises(UsageError, match="in double quotes"):
        run_people_sql(store, "SELECT at FROM journal")
    assert run_people_sql(store, 'SELECT "at" FROM journal').rows == []


def test_an_error_can_stand_before_a_hint(store: Store) -> None:
    with pytest.raises(UsageError, match=r'"nothing" not found in FROM clause$'):
        run_people_sql(store, "SELECT nothing FROM journal")


def test_people_ask_while_the_owner_writes(store: Store) -> None:
    counts: list[int] = []
    failures: list[Exception] = []
    start, stop = threading.Event(), threading.Event()

    def ask() -> None:
        start.set()
        while not stop.is_set():
            try:
                counts.append(run_people_sql(store, "SELECT count(*) FROM taken WHERE mailbox = 'busy'").rows[0][0])
            except Exception as error:
                failures.append(error)
                return

    thread = threading.Thread(target=ask)
    thread.start()
    start.wait(10)
    for number in range(20):
        store.append([TakenRow("busy", "feed", number, START), TakenRow("busy", "other", number, START)])
        if number % 5 == 4:
            store.checkpoint()
    stop.set()
    thread.join(30)
    assert not failures
    assert counts == sorted(counts)
    assert all(count % 2 == 0 for count in counts)
    assert counts
