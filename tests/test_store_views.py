"""The views are a public contract: their names, their columns in order, and what each says; and they can be taken along."""

from __future__ import annotations

import csv
import json
import random
import stat
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from pipeline.arrival.windows import OpenWindow
from pipeline.errors import RegistryError, UsageError
from pipeline.home import Home
from pipeline.store import Store
from pipeline.store.export import VIEWS, export_view
from pipeline.store.rows import (
    AdapterRow,
    ChunkRow,
    ClosingRow,
    JournalRow,
    MailboxRow,
    MessageRow,
    MetricRow,
    RequestRow,
    RunEventRow,
    RunResultRow,
    ShardRow,
    WindowStateRow,
)
from registry.journal import Happening, RegistryState, advance
from streams.inspecting.standing import standings
from tests.support.rows import KEY, START, any_row, flat, message, new_store, thread

COLUMNS = {
    "messages": "mailbox, message_key, thread_id, split, window_idx, arrival_ordinal, received_at, date, sender, subject, "
    "n_tokens, bulk, defects",
    "assignments": "mailbox, chunk_id, thread_id, window_idx, split, sender, message_keys, n_messages, n_tokens, bucket, "
    "tier, sha256",
    "threads": "mailbox, thread_id, split, first_window, n_messages, last_received_at",
    "windows": "mailbox, window_idx, opened_at, closed_at, reason, n_messages, n_chunks, shard_path, shard_sha256, "
    "event_id",
    "bridges": "mailbox, message_key, thread_id, other_thread_id, same_split, at",
    "exclusions": "mailbox, thread_id, chunk_id, reason, since_window, at",
    "erasures": "erasure_id, mailbox, kind, n_messages, asked_at, finished_at, receipt_sha256",
    "masked": "mailbox, window_idx, kind, n",
    "spot_checks": "mailbox, message_key, thread_id, shown_first, shown_second, verdict, preferred, judge, at",
    "duplicates": "mailbox, message_key, feed, cursor, at",
    "dead_letters": "id, mailbox, feed, cursor, stage, reason, attempts, at",
    "runs": "run_id, mailbox, windows, parent_adapter, adapter_id, status, started_at, finished_at, steps, tokens, cost",
    "metrics": "run_id, adapter_id, checkpoint, split, window_from, window_to, metric, value, n, ci_low, ci_high",
    "losses": "adapter_id, checkpoint, mailbox, chunk_id, split, nll, n_tokens, n_bytes, eval_version",
    "replies": "run_id, adapter_id, checkpoint, mailbox, message_key, thread_id, split, given, mails, nll, n_tokens, "
    "eval_version",
    "written": "run_id, adapter_id, checkpoint, mailbox, message_key, thread_id, split, n_tokens, rouge_l, bleu, exact, "
    "f1, repetition",
    "questions": "run_id, mailbox, message_key, thread_id, split, parent_key, found, rank, ndcg",
    "trained_on": "run_id, adapter_id, mailbox, chunk_id, role, times",
    "adapters": "adapter_id, mailbox, run_id, status, created_at, promoted_at, sha256, safety_flags",
    "journal": "ordinal, at, mailbox, adapter_id, event, reason, actor",
}


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    with new_store(home.root) as made:
        yield made


def test_names_and_columns_are_as_promised(store: Store) -> None:
    found: dict[str, list[str]] = {}
    for view, column in store.query(
        "SELECT c.table_name, c.column_name FROM duckdb_columns() c JOIN duckdb_views() v ON v.view_name = c.table_name "
        "AND v.database_name = c.database_name WHERE c.database_name = 'store' AND NOT v.internal ORDER BY c.column_index"
    ):
        found.setdefault(view, []).append(column)
    assert found == {view: columns.split(", ") for view, columns in COLUMNS.items()}
    assert set(VIEWS) == set(COLUMNS)


def test_people_show_until_they_are_erased(home: Home) -> None:
    chunk = any_row(ChunkRow, sender=KEY.of("address", "bob@example.org"), message_keys=("a", "b"))
    with new_store(home.root) as store:
        store.append([*message(0, sender="bob@example.org", subject="Of tides"), thread("t"), chunk])
        assert store.query("SELECT sender, subject FROM messages") == [("bob@example.org", "Of tides")]
        assert store.query("SELECT sender, message_keys FROM assignments") == [("bob@example.org", ["a", "b"])]
    with duckdb.connect(str(home.bodies)) as bodies:
        bodies.execute("DELETE FROM people")
    with Store.open(home, None, None) as store:
        assert store.query("SELECT sender, subject FROM messages") == [(None, None)]
        assert store.query("SELECT sender FROM assignments") == [(None,)]


def test_threads_count_their_own_mailbox(store: Store) -> None:
    store.append([*flat([message(0), message(1), message(2, thread="u")]), thread("t"), thread("u", split="val")])
    store.append([*message(0, mailbox="other"), thread("t", mailbox="other", split="test")])
    assert store.query("SELECT * FROM threads ORDER BY mailbox, thread_id") == [
        ("main", "t", "train", 0, 2, START + timedelta(minutes=1)),
        ("main", "u", "val", 0, 1, START + timedelta(minutes=2)),
        ("other", "t", "test", 0, 1, START),
    ]


def test_windows_are_closed_sharded_or_open(store: Store) -> None:
    day = timedelta(days=1)

    def state(idx: int, n_messages: int, mailbox: str = "main") -> WindowStateRow:
        opened = START + idx * day if n_messages else None
        window = OpenWindow(idx=idx, opened_at=opened, n_messages=n_messages)
        return WindowStateRow(mailbox, 0, window.to_json(), START)

    def closing(idx: int) -> ClosingRow:
        return ClosingRow("main", idx, START + idx * day, START + (idx + 1) * day, "count", 50, 9, 49)

    store.append([closing(0), ShardRow("main", 0, 3, "shards/main/window=000000", "abc", "def", "window.closed/main/0")])
    store.append([closing(1), state(0, 12), state(2, 0), state(0, 0, "empty")])
    closed = [
        ("main", 0, START, START + day, "count", 50, 3, "shards/main/window=000000", "abc", "window.closed/main/0"),
        ("main", 1, START + day, START + 2 * day, "count", 50, None, None, None, None),
    ]
    assert store.query("SELECT * FROM windows ORDER BY window_idx") == closed
    store.append([state(2, 7)])
    opened = ("main", 2, START + 2 * day, None, None, 7, None, None, None, None)
    assert store.query("SELECT * FROM windows ORDER BY window_idx") == [*closed, opened]


def test_runs_show_their_newest_status(store: Store) -> None:
    store.append(any_row(RequestRow, run_id=run_id, windows=(3, 4)) for run_id in ("new", "done"))
    store.append([any_row(RunEventRow, run_id="done", status=status) for status in ("requested", "finished", "promoted")])
    store.append([any_row(RunResultRow, run_id="done", steps=40)])
    assert store.query("SELECT run_id, windows, status, steps FROM runs ORDER BY run_id") == [
        ("done", [3, 4], "promoted", 40),
        ("new", [3, 4], "requested", None),
    ]


@pytest.mark.parametrize("seed", range(12))
def test_adapters_stand_where_the_journal_says(store: Store, seed: int) -> None:
    """The view folds the journal in SQL, the registry in Python: any legal journal must come to the same."""
    rng = random.Random(seed)
    state = RegistryState()
    rows: list[JournalRow] = []
    for _ in range(150):
        adapter = f"a{rng.randrange(6)}"
        mailbox = "one" if adapter < "a3" else "two"
        at = START + timedelta(minutes=len(rows))
        row = JournalRow(len(rows) + 1, at, mailbox, adapter, rng.choice(list(Happening)).value, "by chance", "test")
        try:
            state = advance(state, row)
        except RegistryError:
            continue
        rows.append(row)
    assert len(rows) > 12
    store.append(rows)
    store.append(any_row(AdapterRow, adapter_id=one.adapter_id, mailbox=one.mailbox) for one in state.adapters.values())
    assert dict(store.query("SELECT adapter_id, status FROM adapters")) == {
        one.adapter_id: one.status.value for one in state.adapters.values()
    }
    assert dict(store.query("SELECT adapter_id, promoted_at FROM adapters")) == {
        one.adapter_id: one.promoted_at for one in state.adapters.values()
    }
    store.append(any_row(MailboxRow, mailbox=mailbox) for mailbox in ("one", "two"))
    for found in standings(store):
        champion = state.champion(found.mailbox)
        assert (found.champion, found.champion_since) == (champion, state.adapters[champion].since if champion else None)


def test_an_adapter_without_a_journal_is_a_candidate(store: Store) -> None:
    store.append([any_row(AdapterRow, adapter_id="a")])
    assert store.query("SELECT status, promoted_at FROM adapters") == [("candidate", None)]


# Taking a view along.


@pytest.fixture
def filled(store: Store) -> Store:
    second = [
        replace(row, defects=("charset", 'a "b", c')) if isinstance(row, MessageRow) else row
        for row in message(1, subject='Zwölf; , \n"x"', key="ü")
    ]
    store.append([*message(0), *second])
    return store


def test_a_view_as_csv(filled: Store, tmp_path: Path) -> None:
    path = tmp_path / "messages.csv"
    assert export_view(filled, "messages", "csv", path) == 2
    with path.open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    assert list(first) == COLUMNS["messages"].split(", ")
    assert (first["received_at"], first["bulk"], first["defects"]) == ("2026-01-01T00:00:00", "False", "[]")
    assert (second["message_key"], second["subject"]) == ("ü", 'Zwölf; , \n"x"')
    assert json.loads(second["defects"]) == ["charset", 'a "b", c']
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_view_as_json(filled: Store, tmp_path: Path) -> None:
    path = tmp_path / "messages.json"
    assert export_view(filled, "messages", "json", path) == 2
    first, second = json.loads(path.read_text(encoding="utf-8"))
    assert list(first) == COLUMNS["messages"].split(", ")
    assert first["date"] == "2026-01-01T00:00:00"
    assert second["defects"] == ["charset", 'a "b", c']
    assert export_view(filled, "journal", "json", path) == 0
    assert json.loads(path.read_text(encoding="utf-8")) == []


def test_a_view_as_parquet(filled: Store, tmp_path: Path) -> None:
    path = tmp_path / "messages.parquet"
    assert export_view(filled, "messages", "parquet", path) == 2
    table = pq.read_table(path)
    assert table.column_names == COLUMNS["messages"].split(", ")
    assert table.column("received_at").to_pylist() == [START, START + timedelta(minutes=1)]
    assert table.column("defects").to_pylist() == [[], ["charset", 'a "b", c']]


def test_every_view_can_be_exported_in_every_format(store: Store, tmp_path: Path) -> None:
    for view in VIEWS:
        for kind in ("csv", "json", "parquet"):
            assert export_view(store, view, kind, tmp_path / f"{view}.{kind}") == 0
    assert len(list(tmp_path.glob("*.*"))) == 3 * len(VIEWS)


def test_no_number_is_null_in_text(store: Store, tmp_path: Path) -> None:
    store.append([any_row(MetricRow, value=float("nan"), ci_low=float("-inf"), ci_high=0.5)])
    export_view(store, "metrics", "json", tmp_path / "metrics.json")
    ((row,),) = [json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)]
    assert (row["value"], row["ci_low"], row["ci_high"]) == (None, None, 0.5)


def test_an_unknown_view_or_format_names_those_there_are(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="views: messages"):
        export_view(store, "message_rows", "csv", tmp_path / "x.csv")
    with pytest.raises(UsageError, match="formats: csv, json, parquet"):
        export_view(store, "messages", "xlsx", tmp_path / "x.xlsx")
    assert not list(tmp_path.glob("x.*"))
