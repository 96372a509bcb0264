"""What chooses a checkpoint: weights mean what they say, the front is the front, and the table says why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.settings import EvalSettings
from pipeline.runs.selection import parse_thresholds, parse_weights
from retrain.evaluation.choosing import Candidate, choose, last


def candidate(step: int, kept: bool = True, **parts: float) -> Candidate:
    return Candidate(f"step-{step:06d}", step, parts, kept)


def test_a_weight_means_the_same_whatever_the_scale_of_its_part() -> None:
    low, high = candidate(1, ppl=100.0, rag=3.0), candidate(2, ppl=50.0, rag=3.001)
    for scale in (1.0, 1e-6, 1e6):
        scaled = [candidate(one.step, ppl=one.parts["ppl"] * scale, rag=one.parts["rag"]) for one in (low, high)]
        assert choose(scaled, "weighted", {"ppl": 0.4, "rag": 0.6}, ()).chosen == low.name
        assert choose(scaled, "weighted", {"ppl": 0.6, "rag": 0.4}, ()).chosen == high.name


def test_a_part_that_is_the_same_for_all_decides_nothing() -> None:
    found = choose(
        [candidate(1, ppl=50.0, recall=0.4), candidate(2, ppl=40.0, recall=0.4)], "weighted", {"recall": 1.0}, ()
    )
    assert found.weights == {} and found.chosen == "step-000002"
    assert "nothing tells the checkpoints apart" in found.reason
    weighed = choose([candidate(1, ppl=50.0), candidate(2, ppl=60.0)], "weighted", {"ppl": 0.4, "rag": 0.6}, ())
    assert weighed.weights == {"ppl": 1.0} and weighed.chosen == "step-000001"


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=8))
def test_the_front_holds_what_no_other_beats(pairs: list[tuple[int, int]]) -> None:
    some = [candidate(step, ppl=float(one), accuracy=float(two)) for step, (one, two) in enumerate(pairs)]
    found = choose(some, "pareto", {}, ())
    for row, (one, two) in zip(found.rows, pairs, strict=True):
        beaten = any(a <= one and b >= two and (a, b) != (one, two) for a, b in pairs)
        assert row.front is not beaten
    (winner,) = [row for row in found.rows if row.chosen]
    assert winner.front and winner.checkpoint == found.chosen


def test_thresholds_come_first_and_are_set_aside_when_none_keeps_them() -> None:
    some = [candidate(1, ppl=60.0, rag=3.0), candidate(2, ppl=30.0, rag=5.0)]
    assert choose(some, "val_loss", {}, parse_thresholds("rag<=4")).chosen == "step-000001"
    found = choose(some, "val_loss", {}, parse_thresholds("rag<=4, ppl<=40"))
    assert found.chosen == "step-000002" and "set aside" in found.reason
    assert [row.broken for row in found.rows] == [("ppl<=40",), ("rag<=4",)]
    assert "set aside" in choose(some, "val_loss", {}, parse_thresholds("accuracy>=0.1")).reason  # was not measured


def test_what_has_lost_its_weights_cannot_win() -> None:
    found = choose([candidate(1, kept=False, ppl=10.0), candidate(2, ppl=20.0)], "val_loss", {}, ())
    assert found.chosen == "step-000002" and not found.rows[0].kept


def test_of_equals_the_earliest_wins_and_without_choice_the_last() -> None:
    some = [candidate(1, ppl=10.0), candidate(2, ppl=10.0)]
    assert choose(some, "val_loss", {}, ()).chosen == "step-000001"
    assert last(some, "val_loss").chosen == "step-000002"


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ("ppl", "NAME:WEIGHT"),
        ("", "NAME:WEIGHT"),
        ("speed:1", "'speed' chooses nothing: there are ppl, rag, accuracy, recall"),
        ("ppl:0.4,ppl:0.6", "weighed twice"),
        ("ppl:much", "'much' is not a number"),
        ("ppl:nan", "not a finite number"),
        ("ppl:-1", "negative"),
        ("ppl:0,rag:0", "all weights are 0"),
    ],
)
def test_bad_weights_are_refused_by_name(weights: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_weights(weights)
    with pytest.raises(ValueError, match=says):
        EvalSettings(weights=weights)


@pytest.mark.parametrize("text", ["ppl", "ppl=3", "ppl<=x", "speed>=1", "ppl<=1,"])
def test_bad_thresholds_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"ppl|speed|''|not a number"):
        parse_thresholds(text)


def test_weights_are_shares_and_thresholds_read_as_written() -> None:
    assert parse_weights(" ppl:2, rag:2 ") == {"ppl": 0.5, "rag": 0.5}
    assert [str(one) for one in parse_thresholds("ppl<=40, accuracy >= 0.1")] == ["ppl<=40", "accuracy>=0.1"]
    assert parse_thresholds("  ") == ()
