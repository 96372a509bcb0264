"""`mailtide qrels`: a mailbox exported, read by the engines, and the same figures each time."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pytest

from pipeline.home import Home
from retrain.search.beir import read_collection
from streams.cli.commands import carry_out
from streams.demo.mailbox import write_mailbox


def mailtide(home: Home, *arguments: str, code: int = 0) -> str:
    """One command within this process; returns what it says on stdout, or on stderr where it is to fail."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        returned = carry_out(["--home", str(home.root), *arguments])
    assert returned == code, err.getvalue()
    return out.getvalue() if code == 0 else err.getvalue()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("qrels")
    home = Home(folder / "home")
    archive = folder / "archive.mbox"
    write_mailbox(archive, seed=3, months=9, messages=700)
    mailtide(home, "init")
    mailtide(home, "import", str(archive), "--clock", "header")
    return home


def test_a_mailbox_is_exported_and_measured(home: Home, tmp_path: Path) -> None:
    told = json.loads(mailtide(home, "qrels", "export", str(tmp_path / "gold"), "--json"))
    collection = read_collection(tmp_path / "gold")
    assert {split: len(queries) for split, queries in collection.queries.items()} == told["queries"]
    assert all(count > 10 for count in told["queries"].values())
    ordinals = {key: ordinal for key, ordinal, _ in collection.documents}
    for queries in collection.queries.values():
        for query in queries:
            assert query.before == ordinals[query.key]
            assert all(ordinals[key] < query.before for key in query.grades)
            assert sorted(query.grades.values())[-1] == 2
    evaluate = ("qrels", "evaluate", str(tmp_path / "gold"), "--engine", "bm25", "--runs", "--json")
    first, second = json.loads(mailtide(home, *evaluate)), json.loads(mailtide(home, *evaluate))
    assert first == second
    assert [(result["split"], result["engine"]) for result in first["results"]] == [("test", "bm25"), ("val", "bm25")]
    figures = first["results"][0]["figures"]
    assert 0 < figures["recall@1"]["value"] <= figures["recall@5"]["value"] <= figures["recall@10"]["value"] <= 1
    assert figures["mrr"]["ci_low"] < figures["mrr"]["value"] < figures["mrr"]["ci_high"]
    assert (tmp_path / "gold" / "val.bm25.run").is_file()


def test_the_run_of_a_mailbox_and_the_export_ask_the_same_threads(home: Home, tmp_path: Path) -> None:
    mailtide(home, "qrels", "export", str(tmp_path / "gold"), "--split", "val", "--query", "words", "--queries", "12")
    collection = read_collection(tmp_path / "gold")
    assert list(collection.queries) == ["val"]
    assert len(collection.queries["val"]) == 12
    rows = json.loads(mailtide(home, "sql", "SELECT DISTINCT thread_id FROM messages WHERE split = 'val'", "--json"))
    assert {query.cluster for query in collection.queries["val"]} <= {row["thread_id"] for row in rows}


def test_a_mailbox_without_replies_says_so(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    mailtide(home, "init")
    assert "there is no mailbox yet" in mailtide(home, "qrels", "export", str(tmp_path / "gold"), code=3)
    single = tmp_path / "one.mbox"
    single.write_bytes(
        b"From a@example.org Mon Jan  5 10:00:00 2026\nMessage-ID: <1@x>\nSubject: alone\n\nNobody answers.\n"
    )
    mailtide(home, "import", str(single))
    assert "no reply in val or test" in mailtide(home, "qrels", "export", str(tmp_path / "gold"), code=3)
    assert "cannot be read" in mailtide(home, "qrels", "evaluate", str(tmp_path), code=1)
