"""Searches find what arrived before, and nothing that arrived later; figures by hand."""

from __future__ import annotations

import math
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import Split
from pipeline.errors import MailtideError
from pipeline.runs.runfiles import Exclusions
from retrain.search.bm25 import Bm25Index, words
from retrain.search.gold import Mail
from retrain.search.retrieval import evaluate_index, index_of, read_mails
from tests.support.mailroom import Mailroom

DOCUMENTS = st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6).map(" ".join), min_size=1, max_size=25)


@given(DOCUMENTS, st.sampled_from("abcdefz"), st.integers(0, 30), st.integers(1, 12))
def test_only_what_arrived_before_is_found_and_it_fills_the_list(texts: list[str], query: str, before: int, k: int) -> None:
    index = Bm25Index.build([(f"d{place}", place, text) for place, text in enumerate(texts)])
    found = index.search(query, k, before=before)
    holding = {f"d{place}" for place, text in enumerate(texts) if place < before and query in text.split()}
    assert {key for key, _ in found} <= holding
    assert len(found) == min(k, len(holding))
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


def test_making_an_index_says_nothing_of_how(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(0):
        Bm25Index.build([("a", 1, "quick brown fox")]).search("fox", 1)
    assert not caplog.records


@given(DOCUMENTS, st.randoms())
def test_the_order_of_documents_does_not_matter(texts: list[str], source: Random) -> None:
    rows = [(f"d{place}", place, text) for place, text in enumerate(texts)]
    shuffled = list(rows)
    source.shuffle(shuffled)
    assert Bm25Index.build(rows).search("a b", 5) == Bm25Index.build(shuffled).search("a b", 5)


def test_a_saved_index_answers_alike(tmp_path: Path) -> None:
    index = Bm25Index.build([("a", 1, "quick brown fox"), ("b", 2, "lazy dog"), ("c", 3, "quick dog")])
    index.save(tmp_path)
    assert Bm25Index.load(tmp_path).search("quick dog", 3) == index.search("quick dog", 3) != []
    Bm25Index.build([]).save(tmp_path)
    assert Bm25Index.load(tmp_path).search("quick dog", 3) == []
    with pytest.raises(MailtideError, match="cannot be read"):
        Bm25Index.load(tmp_path / "nowhere")


@given(DOCUMENTS, st.sampled_from(["a", "b c", "a a", "f e z"]))
def test_what_came_later_is_scored_as_what_is_in_the_index(texts: list[str], query: str) -> None:
    index = Bm25Index.build([(f"d{place}", place, text) for place, text in enumerate(texts)])
    twice = index.extended([(f"e{place}", len(texts) + place, text) for place, text in enumerate(texts)])
    assert len(twice) == 2 * len(texts)
    found = dict(twice.search(query, 100))
    assert {key for key in found if key.startswith("d")} == {key for key, _ in index.search(query, 100)}
    for key, score in index.search(query, 100):
        assert found[key] == score
        assert found[f"e{key[1:]}"] == pytest.approx(score, rel=1e-5)
    assert index.search(query, 100) == twice.search(query, 100, before=len(texts))


def test_a_word_that_only_came_later_is_found_and_an_older_document_is_refused(tmp_path: Path) -> None:
    index = Bm25Index.build([("a", 1, "quick brown fox"), ("b", 2, "lazy dog")])
    later = index.extended([("c", 3, "zebra crossing")]).extended([("d", 4, "a zebra and a dog")])
    assert [key for key, _ in later.search("zebra dog", 5)] == ["d", "c", "b"]
    assert [key for key, _ in Bm25Index.build([]).extended([("a", 1, "zebra")]).search("zebra", 5)] == ["a"]
    with pytest.raises(ValueError, match="after its own"):
        index.extended([("z", 1, "zebra")])
    later.save(tmp_path)
    assert len(Bm25Index.load(tmp_path)) == 2


def test_words_of_any_language() -> None:
    assert words("Don't stop_me: STRASSE straße, v2.6") == ["don't", "stop", "me", "strasse", "strasse", "v2", "6"]
    assert words("日本語 x") == ["日本", "本語", "x"]


def mail(key: str, ordinal: int, parent: str | None, text: str, split: Split = Split.VAL) -> Mail:
    return Mail(key, ordinal, parent, f"thread of {key}", split, "", text)


def test_figures_by_hand() -> None:
    mails = [
        mail("root", 1, None, "anchor rope"),
        mail("noise", 2, None, "flour yeast"),
        mail("answer", 3, "root", "keel tide"),
        mail("reply", 4, "answer", "keel anchor anchor tide tide keel rope"),
        mail("lost", 5, "noise", "nothing shared at all"),
        mail("later", 6, None, "keel tide keel tide anchor"),
    ]
    index = index_of(mails)
    found = evaluate_index(index, mails, Split.VAL, 10)
    assert found.candidates == len(mails)
    ranked = found.ranked
    assert ranked.queries == 3  # answer, reply and lost answer something; of these only reply shares a word with it
    means = {figure: sum(values) / 3 for figure, values in ranked.outcomes.items()}
    assert means["recall@10"] == pytest.approx(1 / 3)
    first = means["recall@1"] == pytest.approx(1 / 3)
    gains = (2, 1) if first else (1, 2)
    reached = (gains[0] + gains[1] / math.log2(3)) / (2 + 1 / math.log2(3))
    assert means["ndcg@10"] == pytest.approx(reached / 3)
    assert means["mrr"] == pytest.approx((1 if first else 0.5) / 3)
    assert evaluate_index(index, mails, Split.TEST, 10).ranked.queries == 0


def test_mails_are_read_from_shards_once_each_with_what_they_answer(tmp_path: Path) -> None:
    room = Mailroom(tmp_path)
    room.close(8)
    room.close(8)
    mails = read_mails(room.home, room.ask().shards, Exclusions())
    assert len({mail.key for mail in mails}) == len(mails) > 16
    assert [mail.ordinal for mail in mails] == sorted(mail.ordinal for mail in mails)
    assert all("⁂" not in mail.words for mail in mails)
    assert any(mail.parent is not None for mail in mails)
    gone = mails[0].thread_id
    left = read_mails(room.home, room.ask().shards, Exclusions(threads=frozenset({gone})))
    assert {mail.thread_id for mail in mails} - {mail.thread_id for mail in left} == {gone}
