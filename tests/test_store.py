"""The store keeps what it was given, whole, and nothing changes it: keys, what is read, and kills at any point."""

from __future__ import annotations

import itertools
import os
import random
import selectors
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.arrival.threads import SUBJECT_USES, Needs
from pipeline.domain import Split
from pipeline.errors import StoreError
from pipeline.events import Event, RunFinished
from pipeline.home import Home
from pipeline.store import Store, reading
from pipeline.store.probe import FEW, hash_of
from pipeline.store.rows import (
    ChunkRow,
    CorrespondentRow,
    DuplicateRow,
    JournalRow,
    LinkRow,
    MessageRow,
    MetricRow,
    OutboxRow,
    PersonRow,
    QuarantinedIdRow,
    RawRow,
    Row,
    TakenRow,
    TextRow,
)
from pipeline.store.tables import HASHED, ROW_TYPES, Packed, table_of
from tests.support.appender import BATCH, appender
from tests.support.rows import KEY, START, any_row, flat, message, new_store, sha, thread

fresh = (f"mailbox{number}" for number in itertools.count())
"""Names that no example has used."""

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "it's a home")


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    with new_store(home.root) as made:
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One store for many examples, which keep apart by mailbox."""
    with new_store(tmp_path_factory.mktemp("shared") / "home") as made:
        yield made


# What is written stays.


@pytest.mark.parametrize("row_type", [kind for kind in ROW_TYPES if not kind.BODIES], ids=lambda kind: kind.TABLE)
def test_nothing_changes_a_row(shared: Store, row_type: type[Row]) -> None:
    table, column = row_type.TABLE, f'"{fields(row_type)[0].name}"'
    shared.append([any_row(row_type)])
    before = shared.fetch(row_type)
    assert before
    for statement in (
        f"UPDATE {table} SET {column} = {column}",
        f"DELETE FROM {table}",
        f"TRUNCATE {table}",
        f"WITH gone AS (DELETE FROM {table} RETURNING *) SELECT * FROM gone",
        f"MERGE INTO {table} AS t USING (SELECT 1) AS s ON true WHEN MATCHED THEN DELETE",
    ):
        with pytest.raises(StoreError, match=r"append-only|not supported on tables with triggers"):
            shared.query(statement)
    assert shared.fetch(row_type) == before


@pytest.mark.parametrize("table", ["migrations", "frozen_values"])
def test_nothing_changes_what_the_store_says_of_itself(shared: Store, table: str) -> None:
    with pytest.raises(StoreError, match="append-only"):
        shared.query(f"DELETE FROM {table}")


def test_every_table_is_as_its_row_class_says(shared: Store) -> None:
    seen = 0
    for row_type in ROW_TYPES:
        database = "bodies" if row_type.BODIES else "store"
        columns = shared.query(
            "SELECT column_name, is_nullable FROM duckdb_columns() WHERE database_name = ? AND table_name = ? "
            "ORDER BY column_index",
            [database, row_type.TABLE],
        )
        hints = get_type_hints(row_type)
        named = [(field.name, "None" in str(hints[field.name])) for field in fields(row_type)]
        hashes = [f"{column}_hash" for column in HASHED.get(row_type.TABLE, ())]
        assert columns[: len(named)] == named
        assert [name for name, _ in columns[len(named) :]] == hashes
        seen += 1
    assert seen == len(ROW_TYPES) > 20


# What is read is what was appended.


def _cell(hint: Any) -> st.SearchStrategy[Any]:
    plain = {
        str: st.text(st.characters(codec="utf-8"), max_size=20),
        int: st.integers(-(2**63), 2**63 - 1),
        float: st.floats(allow_nan=False),
        bool: st.booleans(),
        datetime: st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)),
        bytes: st.binary(max_size=20),
    }
    if hint in plain:
        return plain[hint]
    if str(hint).startswith("tuple"):
        return st.lists(_cell(hint.__args__[0]), max_size=3).map(tuple)
    return st.none() | _cell(next(part for part in hint.__args__ if part is not type(None)))


def _row(row_type: type[Row]) -> st.SearchStrategy[Row]:
    hints = get_type_hints(row_type)
    return st.builds(row_type, **{field.name: _cell(hints[field.name]) for field in fields(row_type)})


@settings(max_examples=40, deadline=None)
@given(st.lists(_row(DuplicateRow) | _row(MetricRow) | _row(TakenRow), max_size=12), st.lists(_row(MessageRow), max_size=1))
def test_rows_come_back_as_they_were(shared: Store, rows: list[Row], messages: list[Row]) -> None:
    given_ = [*rows, *(row for row in messages if not _known(shared, row))]
    before = {kind: len(shared.fetch(kind)) for kind in (DuplicateRow, MetricRow, TakenRow, MessageRow)}
    shared.append(given_)
    for kind, count in before.items():
        assert shared.fetch(kind)[count:] == [row for row in given_ if isinstance(row, kind)]


def test_packed_rows_are_rows(store: Store) -> None:
    rows = [any_row(ChunkRow, chunk_id=f"c{number}", message_keys=("a", f"b{number}")) for number in range(7)]
    store.append([Packed.of(rows[1:4]), rows[0], Packed.of(rows[4:])])
    assert store.fetch(ChunkRow) == rows
    with pytest.raises(StoreError, match="chunk_id c5 is stored already"):
        store.append([Packed.of([any_row(ChunkRow, chunk_id="c8"), rows[5]])])
    with pytest.raises(StoreError, match="chunk_id c9 is given twice"):
        store.append([any_row(ChunkRow, chunk_id="c9"), Packed.of([any_row(ChunkRow, chunk_id="c9")])])
    assert len(store.fetch(ChunkRow)) == len(rows)


def test_rows_that_come_one_by_one_are_stored_as_those_of_a_batch(home: Home, tmp_path: Path) -> None:
    rows = flat(message(number, subject="" if number % 3 else "Grüße \0") for number in range(30))
    rows += [any_row(MessageRow, message_key=f"m{number}", arrival_ordinal=100 + number) for number in range(30)]
    with new_store(home.root) as together, new_store(tmp_path / "other") as apart:
        together.append(rows)
        for row in rows:
            apart.append([row])
        for name in ("bodies.texts", "bodies.people", "links", "message_rows"):
            stored = together.query(f"SELECT * FROM {name} ORDER BY ALL")
            assert len(stored) >= 4
            assert apart.query(f"SELECT * FROM {name} ORDER BY ALL") == stored
            hashed = [
                f'"{column}_hash" IS NOT DISTINCT FROM {hash_of(column)}' for column in HASHED[name.rpartition(".")[2]]
            ]
            assert apart.query(f"SELECT bool_and({' AND '.join(hashed)}) FROM {name}") == [(True,)]


def _known(store: Store, row: Row) -> bool:
    assert isinstance(row, MessageRow)
    found = store.scalar(
        "SELECT count(*) FROM message_rows WHERE mailbox = ? AND (message_key = ? OR arrival_ordinal = ?)",
        [row.mailbox, row.message_key, row.arrival_ordinal],
    )
    return bool(found)


@settings(max_examples=20, deadline=None)
@given(st.lists(_row(TextRow) | _row(PersonRow) | _row(RawRow), max_size=12))
def test_bodies_are_stored_once(shared: Store, rows: list[Row]) -> None:
    shared.append([*rows, *rows])
    shared.append(rows)
    for row_type in (TextRow, PersonRow, RawRow):
        key = table_of(row_type).keys[0][0]
        stored = {getattr(row, key): row for row in shared.fetch(row_type)}
        assert len(stored) == len(shared.fetch(row_type))
        for row in rows:
            if isinstance(row, row_type):
                assert getattr(row, key) in stored


def test_fetch_takes_a_condition_and_an_order(store: Store) -> None:
    store.append(any_row(JournalRow, ordinal=ordinal, at=START, reason=str(ordinal)) for ordinal in (3, 1, 2))
    assert [row.ordinal for row in store.fetch(JournalRow)] == [3, 1, 2]
    assert [row.ordinal for row in store.fetch(JournalRow, "ordinal > ?", [1], "ordinal")] == [2, 3]
    assert store.scalar("SELECT max(ordinal) FROM journal") == 3
    assert store.scalar("SELECT ordinal FROM journal WHERE ordinal > 3") is None


def test_ordinals_go_on_from_the_last(home: Home) -> None:
    def events(*names: str) -> list[Event]:
        return [Event.of(RunFinished(mailbox="main", run_id=name, ok=True), at=START) for name in names]

    with new_store(home.root) as store:
        assert store.next_ordinal(JournalRow) == 1
        store.append(store.outbox_rows(events("a", "b")))
    with Store.open(home, None, None) as store:
        store.append(store.outbox_rows(events("c")))
        assert [(row.ordinal, row.event_id) for row in store.fetch(OutboxRow)] == [
            (1, "run.finished/main/a"),
            (2, "run.finished/main/b"),
            (3, "run.finished/main/c"),
        ]


# A key is used once, and a batch is taken whole or not at all.


@pytest.mark.parametrize(
    "row_type", [kind for kind in ROW_TYPES if kind.KEYS and not kind.BODIES], ids=lambda kind: kind.TABLE
)
def test_a_repeated_key_leaves_nothing(home: Home, shared: Store, row_type: type[Row]) -> None:
    named = {"mailbox": row_type.TABLE} if "mailbox" in table_of(row_type).columns else {}
    row = any_row(row_type, **{name: "key" for name, hint in get_type_hints(row_type).items() if hint is str} | named)
    text = f"a text beside {row_type.TABLE}"
    with pytest.raises(StoreError, match="given twice"):
        shared.append([TextRow(sha(text), text), row, row])
    assert row not in shared.fetch(row_type)
    if not shared.fetch(row_type, "true"):
        shared.append([row])
    with pytest.raises(StoreError, match="stored already"):
        shared.append([TextRow(sha(text), text), any_row(TakenRow, mailbox=text), shared.fetch(row_type)[0]])
    assert not shared.fetch(TextRow, "sha256 = ?", [sha(text)])
    assert not shared.fetch(TakenRow, "mailbox = ?", [text])


def test_a_batch_that_fails_midway_leaves_no_row(store: Store) -> None:
    nameless: Any = None
    with pytest.raises(StoreError, match="NOT NULL"):
        store.append([*message(0), any_row(TakenRow, feed=nameless)])
    assert not store.fetch(MessageRow)
    assert not store.fetch(LinkRow)
    store.append(message(0))
    assert len(store.fetch(MessageRow)) == 1


def test_equal_keys_of_two_mailboxes_are_two(store: Store) -> None:
    store.append([*message(0, mailbox="one"), *message(0, mailbox="two")])
    assert {row.mailbox for row in store.fetch(MessageRow)} == {"one", "two"}


# What placing a batch looks up.


def test_lookup_finds_what_is_needed_of_one_mailbox(store: Store) -> None:
    store.append(
        [
            *flat([message(0, key="a", thread="ta"), message(1, key="a#1", base="a", thread="ta")]),
            *message(2, key="b", thread="tb", subject="Other"),
            *message(0, key="a", thread="elsewhere", mailbox="second"),
            QuarantinedIdRow("main", "bad", "qt"),
            CorrespondentRow("main", "p1"),
            CorrespondentRow("second", "p2"),
            thread("ta"),
            thread("tb", split="val", first_ordinal=2),
            thread("qt", split="quarantine", first_ordinal=9),
            thread("elsewhere", mailbox="second"),
        ]
    )
    hello = KEY.of("subject", "Hello")
    known = store.lookup(
        "main", Needs(base_keys={"a", "b", "?"}, ids={"a", "bad", "?"}, subject_keys={hello}, person_keys={"p1", "p2"})
    )
    assert known.links == {"a": "ta"}
    assert known.quarantined == {"bad": "qt"}
    assert {key: [version.message_key for version in versions] for key, versions in known.versions.items()} == {
        "a": ["a", "a#1"],
        "b": ["b"],
    }
    assert known.versions["b"][0].thread_id == "tb"
    assert [use.ordinal for use in known.subjects[hello]] == [0, 1]
    assert known.subjects[hello][0].participants == {KEY.of("address", "ann@example.org")}
    assert known.people == {"p1"}
    assert {thread_id: found.split for thread_id, found in known.threads.items()} == {
        "ta": Split.TRAIN,
        "tb": Split.VAL,
        "qt": Split.QUARANTINE,
    }
    assert known.threads["tb"].first_ordinal == 2
    assert store.lookup("main", Needs()) == store.lookup("nobody's", Needs(ids={"a"}))


def test_lookup_gives_the_newest_uses_of_a_subject(store: Store) -> None:
    store.append(flat(message(ordinal) for ordinal in range(SUBJECT_USES + 7)))
    key = KEY.of("subject", "Hello")
    uses = store.lookup("main", Needs(subject_keys={key})).subjects[key]
    assert [use.ordinal for use in uses] == list(range(7, SUBJECT_USES + 7))


ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=3)


@settings(max_examples=30, deadline=None)
@given(links=st.dictionaries(ids, ids, max_size=2 * FEW), asked=st.sets(ids, max_size=2 * FEW))
def test_lookup_agrees_with_a_dictionary(shared: Store, links: dict[str, str], asked: set[str]) -> None:
    mailbox = next(fresh)
    shared.append(LinkRow(mailbox, id_, thread_id) for id_, thread_id in links.items())
    found = shared.lookup(mailbox, Needs(ids=asked)).links
    assert found == {id_: links[id_] for id_ in asked if id_ in links}


# Messages with their words.


def test_messages_come_back_with_their_words(store: Store) -> None:
    store.append(
        [
            *message(0, key="a", sender="bob@example.org"),
            any_row(MessageRow, message_key="bare", arrival_ordinal=1, mailbox="main", split="val"),
        ]
    )
    first, bare = store.all_messages("main")
    assert (first.sender_address, first.sender_name, first.subject) == ("bob@example.org", "Bob@Example.Org", "Hello")
    assert (first.text, first.own_text) == ("text of a\n> quoted", "text of a")
    assert (bare.sender_key, bare.sender_name, bare.subject, bare.text, bare.own_text) == ("", "", "", "", "")
    assert bare.split is Split.VAL
    assert store.messages_by_key("main", ["a", "unknown"]) == {"a": first}
    assert store.messages_by_key("second", ["a"]) == {}


@settings(max_examples=25, deadline=None)
@given(
    placed=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1)), max_size=40),
    overlap=st.integers(0, 3),
    page=st.integers(1, 9),
)
def test_threads_of_a_window_agree_with_a_list(
    shared: Store, placed: list[tuple[int, int]], overlap: int, page: int
) -> None:
    mailbox = next(fresh)
    windows: list[int] = []
    for _, step in placed:
        windows.append(min((windows[-1] if windows else 0) + step, 3))
    shared.append(
        flat(
            message(ordinal, thread=f"t{thread_}", window=window, mailbox=mailbox)
            for ordinal, ((thread_, _), window) in enumerate(zip(placed, windows, strict=True))
        )
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "PAGE", page)
        assert [one.arrival_ordinal for one in shared.all_messages(mailbox)] == list(range(len(placed)))
        for window in range(4):
            expected: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
            for ordinal, ((thread_, _), at) in enumerate(zip(placed, windows, strict=True)):
                if at <= window:
                    expected[f"t{thread_}"][at == window].append(ordinal)
            got = {
                new[0].thread_id: ([one.arrival_ordinal for one in earlier], [one.arrival_ordinal for one in new])
                for earlier, new in shared.iter_threads(mailbox, window, overlap)
            }
            assert got == {
                thread_id: (earlier[len(earlier) - min(overlap, len(earlier)) :], new)
                for thread_id, (earlier, new) in expected.items()
                if new
            }
            assert list(got) == sorted(got, key=lambda thread_id: got[thread_id][1][0])


# Kills and costs.


def test_kills_lose_no_acknowledged_batch_and_leave_none_half(home: Home) -> None:
    new_store(home.root).close()
    rng = random.Random(11)
    acknowledged = -1
    for _ in range(10):
        with appender(home) as process:
            acknowledged = max(acknowledged, _kill_soon(process, rng.uniform(0.0, 0.3)))
        with Store.open(home, None, None) as store:
            batches = [number for (number,) in store.query("SELECT last_number FROM taken ORDER BY rowid")]
            assert batches == list(range(len(batches)))
            assert len(batches) > acknowledged
            ordinals = [ordinal for (ordinal,) in store.query("SELECT arrival_ordinal FROM message_rows ORDER BY rowid")]
            assert ordinals == list(range(len(batches) * BATCH))
            assert store.scalar("SELECT count(*) FROM links") == len(ordinals)
            wordless = "SELECT count(*) FROM message_rows m ANTI JOIN bodies.texts t ON t.sha256 = m.text_sha"
            assert store.scalar(wordless) == 0
            with pytest.raises(StoreError, match="append-only"):
                store.query("DELETE FROM taken")
    assert acknowledged > 10


def _kill_soon(process: subprocess.Popen[bytes], seconds: float) -> int:
    """Kills the process some time after its first acknowledgement; returns the last one that it gave."""
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    said = b""
    deadline = None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while deadline is None or time.monotonic() < deadline:
            ready = selector.select(60 if deadline is None else max(0.0, deadline - time.monotonic()))
            if ready:
                more = os.read(process.stdout.fileno(), 65536)
                assert more, "the process ended by itself"
                said += more
                deadline = deadline or time.monotonic() + seconds
    process.kill()
    process.wait(60)
    os.set_blocking(process.stdout.fileno(), True)
    said += process.stdout.read()
    return int(said[: said.rindex(b"\n")].split()[-1])


def test_appending_does_not_slow_down_as_the_store_grows(store: Store) -> None:
    costs = []
    for start in range(0, 12_000, 500):
        rows = flat(message(ordinal, thread=f"t{ordinal % 500}") for ordinal in range(start, start + 500))
        before = time.process_time()
        store.append(rows)
        costs.append(time.process_time() - before)
    early, late = sorted(costs[2:8])[3], sorted(costs[-6:])[3]
    assert late < 3 * early


def test_a_checkpoint_folds_the_logs_into_the_files(home: Home, store: Store) -> None:
    store.append(flat(message(ordinal) for ordinal in range(100)))
    store.checkpoint()
    for name in ("store", "bodies"):
        log = home.root / f"{name}.duckdb.wal"
        assert not log.exists() or log.stat().st_size == 0
    assert len(list(store.all_messages("main"))) == 100
