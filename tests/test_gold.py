"""Questions with known answers: who asks, what counts, how it is measured, and what other tools read of it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain import Split
from pipeline.errors import MailtideError
from retrain.search.beir import Collection, read_collection, safe, write_collection, write_run
from retrain.search.bm25 import Bm25Index
from retrain.search.engines import rank
from retrain.search.gold import Asked, Mail, Query, queries_of
from retrain.search.rankings import FIGURES, judge


def mail(key: str, ordinal: int, parent: str | None, text: str = "words", split: Split = Split.VAL) -> Mail:
    return Mail(key, ordinal, parent, "thread", split, "a subject", text)


def test_a_reply_asks_for_its_parent_and_less_so_for_what_that_answered() -> None:
    mails = [mail("a", 0, None), mail("b", 1, "a"), mail("c", 2, "b"), mail("d", 3, "gone")]
    found = queries_of(mails, Split.VAL)
    assert [(query.key, query.grades, query.before) for query in found] == [
        ("b", {"a": 2}, 1),
        ("c", {"b": 2, "a": 1}, 2),
    ]


def test_what_came_later_or_was_trained_on_is_neither_asked_for_nor_asked_with() -> None:
    late = [mail("reply", 0, "parent"), mail("parent", 1, None)]
    assert queries_of(late, Split.VAL) == []
    trained = [mail("parent", 0, None, split=Split.TRAIN), mail("reply", 1, "parent"), mail("next", 2, "reply")]
    assert [(query.key, query.grades) for query in queries_of(trained, Split.VAL)] == [("next", {"reply": 2})]
    assert queries_of(trained, Split.TRAIN) == []


def test_a_circle_of_parents_ends() -> None:
    mails = [mail("a", 0, "b"), mail("b", 1, "a"), mail("c", 2, "b")]
    assert queries_of(mails, Split.VAL)[-1].grades == {"b": 2, "a": 1}


def test_a_query_is_the_subject_and_the_first_own_lines_and_no_quoted_one() -> None:
    text = "\n> what they wrote\n first\n\nsecond\nthird\nfourth"
    mails = [mail("a", 0, None), mail("b", 1, "a", text), mail("c", 2, "a", "> all quoted")]
    assert [query.text for query in queries_of(mails, Split.VAL)] == ["a subject\nfirst second third"]
    assert [query.text for query in queries_of(mails, Split.VAL, asked=Asked.WORDS)] == ["first second third"]
    assert [query.text for query in queries_of(mails, Split.VAL, asked=Asked.SUBJECT)] == ["a subject"]
    long = [mail("a", 0, None), mail("b", 1, "a", "word " * 1000)]
    assert len(queries_of(long, Split.VAL)[0].text) < 400


def test_fewer_queries_are_a_part_of_more() -> None:
    mails = [mail("root", 0, None), *(mail(f"m{place}", place, "root") for place in range(1, 40))]
    every = queries_of(mails, Split.VAL)
    some, fewer = queries_of(mails, Split.VAL, 20), queries_of(mails, Split.VAL, 5)
    assert (len(every), len(some), len(fewer)) == (39, 20, 5)
    assert [query for query in every if query in some] == some
    assert all(query in some for query in fewer)


def ask(key: str, grades: dict[str, int], cluster: str = "") -> Query:
    return Query(key, f"text of {key}", grades, cluster or key)


def test_figures_are_those_worked_out_by_hand() -> None:
    queries = [ask("q1", {"p": 2, "a": 1}), ask("q2", {"p": 2}), ask("q3", {"p": 2}), ask("q4", {"p": 2})]
    far = [f"d{place}" for place in range(9)]
    ranked = judge(queries, [["a", "p"], ["p", "x"], [*far, "p"], [*far, "y", "p"]])
    assert ranked.outcomes["recall@1"] == (0, 1, 0, 0)
    assert ranked.outcomes["recall@5"] == (1, 1, 0, 0)
    assert ranked.outcomes["recall@10"] == (1, 1, 1, 0)
    assert ranked.outcomes["mrr"] == pytest.approx((0.5, 1, 0.1, 0))
    first = (1 + 2 / math.log2(3)) / (2 + 1 / math.log2(3))
    assert ranked.outcomes["ndcg@10"] == pytest.approx((first, 1, 1 / math.log2(11), 0))
    lenient = judge(queries[:1], [["a", "x"]], relevant=1)
    assert (lenient.outcomes["recall@1"], lenient.outcomes["mrr"]) == ((0.5,), (1.0,))


def test_order_decides_also_where_scores_would_be_equal_as_floats() -> None:
    documents = [f"d{place:04d}" for place in range(500)]
    queries = [ask(key, {key: 2}) for key in documents[:10]]
    assert judge(queries, [documents] * 10).outcomes["mrr"] == pytest.approx([1 / place for place in range(1, 11)])
    assert judge(queries, [documents[::-1]] * 10).outcomes["mrr"] == (0.0,) * 10


def test_no_query_and_nothing_found_are_no_figures_and_zero() -> None:
    assert judge([], []).interval("mrr") is None
    nothing = judge([ask("q", {"p": 2})], [[]])
    assert {figure: nothing.outcomes[figure] for figure in FIGURES} == {figure: (0.0,) for figure in FIGURES}


def test_intervals_know_threads_and_differences_are_paired() -> None:
    queries = [ask(f"q{place}", {"p": 2}, f"thread {place % 25}") for place in range(100)]
    worse = judge(queries, [["p"] if place % 2 else ["x", "p"] for place in range(100)])
    better = judge(queries, [["p"]] * 100)
    share = worse.interval("recall@1")
    assert share is not None and share.value == 0.5 and 0 < share.low < 0.5 < share.high < 1 and share.n_clusters == 25
    gain = better.difference(worse, "mrr")
    assert gain is not None and gain.value == pytest.approx(0.25)
    none = better.difference(better, "mrr")
    assert none is not None and (none.value, none.low, none.high) == (0, 0, 0)
    with pytest.raises(ValueError):
        better.difference(judge(queries[:1], [["p"]]), "mrr")


KEYS = st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=8, unique_by=safe)


@settings(deadline=None, max_examples=30)
@given(KEYS, st.randoms(use_true_random=False))
def test_trec_eval_reads_our_files_and_gets_our_figures(
    tmp_path_factory: pytest.TempPathFactory, keys: list[str], source: Random
) -> None:
    import ir_measures
    from ir_measures import RR, R, nDCG

    folder = tmp_path_factory.mktemp("beir")
    documents = tuple((key, place, f"title {place}\ntext {key}") for place, key in enumerate(keys))
    queries = tuple(Query(key, "text", {source.choice(keys): 2}, "t", place) for place, key in enumerate(keys))
    found = [source.sample(keys, source.randint(0, len(keys))) for _ in queries]
    write_collection(folder, Collection(documents, {"test": queries}, 2))
    run = write_run(folder, "test", "ours", queries, found)
    qrels = list(ir_measures.read_trec_qrels(str(folder / "test.qrels")))
    told = ir_measures.calc_aggregate(
        [R(rel=2) @ 5, RR(rel=2) @ 10, nDCG @ 10], qrels, list(ir_measures.read_trec_run(str(run)))
    )
    ours = judge(queries, found)
    mean = {figure: sum(values) / len(values) for figure, values in ours.outcomes.items()}
    assert told[R(rel=2) @ 5] == pytest.approx(mean["recall@5"], abs=1e-9)
    assert told[RR(rel=2) @ 10] == pytest.approx(mean["mrr"], abs=1e-9)
    assert told[nDCG @ 10] == pytest.approx(mean["ndcg@10"], abs=1e-9)


def test_a_collection_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    documents = (("a@x", 0, "title\nline\u2028one\nline two"), ("b@x", 4, "\nno title"))
    queries = {
        "val": (Query("b@x", "what\nnow", {"a@x": 2}, "t1", 4),),
        "test": (Query("c@x", "ähm", {"a@x": 2, "b@x": 1}, "t2", 9),),
    }
    collection = Collection(documents, queries, 2)
    write_collection(tmp_path / "out", collection)
    assert read_collection(tmp_path / "out") == collection
    assert read_collection(tmp_path / "out", ["val"]).queries == {"val": queries["val"]}
    assert all(file.stat().st_mode & 0o077 == 0 for file in (tmp_path / "out").rglob("*"))
    with pytest.raises(MailtideError, match="no split dev"):
        read_collection(tmp_path / "out", ["dev"])


def lines(path: Path, entries: Sequence[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def test_a_folder_of_another_maker_is_read(tmp_path: Path) -> None:
    lines(tmp_path / "corpus.jsonl", [{"_id": "d1", "title": "Anchors", "text": "rope"}, {"_id": "d2", "text": "yeast"}])
    asked = [
        {"_id": "q1", "text": "anchors rope", "metadata": {}},
        {"_id": "d2", "text": "yeast"},
        {"_id": "q3", "text": "?"},
    ]
    lines(tmp_path / "queries.jsonl", asked)
    qrels = tmp_path / "qrels" / "test.tsv"
    qrels.parent.mkdir()
    qrels.write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nd2\td1\t1\nq3\td1\t0\nunknown\td1\t1\n")
    found = read_collection(tmp_path)
    assert found.relevant == 1
    assert [(query.key, query.before, query.cluster) for query in found.queries["test"]] == [
        ("q1", None, "q1"),
        ("d2", None, "d2"),
    ]
    index = Bm25Index.build(found.documents)
    assert rank(index, found.queries["test"], 5) == [["d1"], []], "a query that is itself a document is not its own answer"


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("corpus.jsonl", '{"_id": "a", "text": ""}\n{"_id": "b"}\n', "line 2: not a JSON object with _id and text"),
        ("queries.jsonl", "[1]\n", "line 1"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq d 1\n", "line 2: not a query, a document and a grade"),
        ("mailtide.json", "{}", "cannot be read"),
        ("corpus.jsonl", None, "No such file"),
        ("qrels/test.tsv", None, "holds no .tsv file"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, file: str, content: str | None, said: str) -> None:
    write_collection(tmp_path, Collection((("a", 0, "t\nx"),), {"test": (Query("q", "x", {"a": 2}, "t"),)}, 2))
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_text(content)
    with pytest.raises(MailtideError, match=said):
        read_collection(tmp_path)
