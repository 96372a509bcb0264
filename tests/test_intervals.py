"""Intervals: they cover what they claim, they count threads and not chunks, and they admit what cannot be known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.intervals import Interval, detectable, proportion_interval, ratio_interval, t_quantile
from pipeline.sampling.halves import gating_threads, selecting_threads

observations = st.lists(
    st.tuples(st.floats(-10, 10), st.integers(1, 1000), st.sampled_from("abcdefgh")), min_size=2, max_size=40
).filter(lambda rows: len({thread for _, _, thread in rows}) > 1)


def interval(
    rows: list[tuple[float, int, str]], *, confidence: float = 0.95, shift: float = 0.0, scale: float = 1.0
) -> Interval:
    found = ratio_interval(
        [scale * (loss + shift) * tokens for loss, tokens, _ in rows],
        [tokens for _, tokens, _ in rows],
        [thread for _, _, thread in rows],
        confidence=confidence,
    )
    assert found is not None
    return found


def test_the_value_weighs_by_tokens_and_the_error_is_the_textbook_one_for_equal_clusters() -> None:
    values = [0.1, 0.4, -0.2, 0.5, 0.3]
    found = interval([(value, 100, str(thread)) for thread, value in enumerate(values)])
    assert found.value == pytest.approx(np.mean(values))
    assert found.error == pytest.approx(np.std(values, ddof=1) / math.sqrt(5))
    assert found.df == pytest.approx(4)
    assert found.high == pytest.approx(found.value + 2.7764451 * found.error)
    assert interval([(1.0, 900, "a"), (0.0, 100, "b")]).value == pytest.approx(0.9)


def test_chunks_of_one_thread_are_not_independent_evidence() -> None:
    rows = [(value, 100, str(thread)) for thread, value in enumerate([0.1, 0.4, -0.2, 0.5, 0.3])]
    once, often = interval(rows), interval(rows * 20)
    assert often.error == pytest.approx(once.error)
    assert (often.n, often.n_clusters) == (100, 5)


@given(observations, st.floats(-5, 5))
def test_adding_a_constant_moves_the_interval_and_nothing_else(rows: list[tuple[float, int, str]], shift: float) -> None:
    plain, moved = interval(rows), interval(rows, shift=shift)
    for bound in ("value", "low", "high"):
        assert getattr(moved, bound) == pytest.approx(getattr(plain, bound) + shift, abs=1e-6)


@given(observations)
def test_it_mirrors_widens_with_confidence_and_holds_the_value(rows: list[tuple[float, int, str]]) -> None:
    plain, mirrored, wider = interval(rows), interval(rows, scale=-1), interval(rows, confidence=0.99)
    assert mirrored.low == pytest.approx(-plain.high, abs=1e-9)
    assert wider.low <= plain.low <= plain.value <= plain.high <= wider.high


def test_what_cannot_be_known_is_not_claimed() -> None:
    assert ratio_interval([], [], []) is None
    assert ratio_interval([1.0], [0], ["a"]) is None
    one = ratio_interval([1.0, 2.0], [10, 10], ["a", "a"])
    assert one is not None
    assert (one.value, one.low, one.high, one.few) == (0.15, -math.inf, math.inf, True)
    assert one.bounds == (None, None)
    assert detectable(one) == math.inf


def test_observations_without_weight_change_nothing() -> None:
    with_empty = ratio_interval([1.0, 2.0, 0.0], [10, 10, 0], ["a", "b", "c"])
    without = ratio_interval([1.0, 2.0], [10, 10], ["a", "b"])
    assert with_empty == without


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        ratio_interval([1.0], [1.0, 2.0], ["a"])
    with pytest.raises(ValueError, match="negative"):
        ratio_interval([1.0, 1.0], [1.0, -2.0], ["a", "b"])


def test_one_sided_bounds_spend_the_whole_error_on_one_side() -> None:
    numerators, ones, threads = [0.1, 0.4, -0.2, 0.5], [1.0] * 4, list("abcd")
    both = ratio_interval(numerators, ones, threads, confidence=0.9)
    upper = ratio_interval(numerators, ones, threads, confidence=0.95, sided="upper")
    lower = ratio_interval(numerators, ones, threads, confidence=0.95, sided="lower")
    assert both is not None and upper is not None and lower is not None
    assert upper.high == pytest.approx(both.high)
    assert lower.low == pytest.approx(both.low)
    assert (upper.low, lower.high) == (-math.inf, math.inf)
    assert upper.bounds == (None, upper.high)


def simulated(rng: np.random.Generator, clusters: int, *, heavy: bool) -> tuple[list[float], list[float], list[str]]:
    """Chunks with a thread's effect and their own, true mean zero, in threads of very different length."""
    lengths = np.minimum(1 + rng.pareto(1.3, clusters).astype(int), 40) if heavy else rng.geometric(0.4, clusters)
    thread = np.repeat(np.arange(clusters), lengths)
    tokens = rng.integers(100, 500, len(thread)).astype(float)
    loss = rng.normal(0, 0.08, clusters)[thread] + rng.normal(0, 0.1, len(thread))
    return list(loss * tokens), list(tokens), [f"t{name}" for name in thread]


@pytest.mark.parametrize("heavy", [False, True], ids=["even", "heavy-tailed"])
@pytest.mark.parametrize("clusters", [20, 40])
def test_it_covers_the_truth_as_often_as_it_claims(clusters: int, heavy: bool) -> None:
    rng = np.random.default_rng(clusters)
    trials = 2000
    covered = 0
    for _ in range(trials):
        found = ratio_interval(*simulated(rng, clusters, heavy=heavy))
        assert found is not None
        covered += found.low <= 0.0 <= found.high
    assert 0.93 <= covered / trials <= 0.97


def test_the_detectable_difference_is_detected_four_times_in_five() -> None:
    rng = np.random.default_rng(5)
    errors = []
    for _ in range(300):
        found = ratio_interval(*simulated(rng, 40, heavy=False))
        assert found is not None
        errors.append(detectable(found))
    effect = float(np.mean(errors))
    seen = 0
    for _ in range(1000):
        nats, tokens, threads = simulated(rng, 40, heavy=False)
        shifted = [one + effect * of for one, of in zip(nats, tokens, strict=True)]
        found = ratio_interval(shifted, tokens, threads, sided="lower")
        assert found is not None
        seen += found.low > 0
    assert 0.74 <= seen / 1000 <= 0.86


def test_proportions_stay_within_bounds_and_are_never_certain() -> None:
    threads = [f"t{i // 2}" for i in range(20)]
    everything = proportion_interval([True] * 20, threads)
    nothing = proportion_interval([False] * 20, threads)
    one = proportion_interval([True, False], ["a", "a"])
    assert everything is not None and nothing is not None and one is not None
    assert everything.high == 1.0 and 0.6 < everything.low < 0.75
    assert nothing.low == 0.0
    assert nothing.high == pytest.approx(1 - everything.low)
    assert (one.value, one.low, one.high) == (0.5, 0.0, 1.0)
    assert proportion_interval([], []) is None


@pytest.mark.parametrize("share", [0.5, 0.9, 0.98])
def test_proportions_cover_the_truth(share: float) -> None:
    rng = np.random.default_rng(int(100 * share))
    trials = 1000
    covered = 0
    for _ in range(trials):
        thread = np.repeat(np.arange(25), rng.geometric(0.4, 25))
        hits = rng.random(len(thread)) < rng.beta(6 * share, 6 * (1 - share), 25)[thread]
        found = proportion_interval([bool(hit) for hit in hits], [str(name) for name in thread])
        assert found is not None
        covered += found.low <= share <= found.high
    assert 0.93 <= covered / trials <= 0.99


def test_t_quantiles_agree_with_the_tables() -> None:
    assert t_quantile(0.975, 10) == pytest.approx(2.228139)
    assert t_quantile(0.95, 4) == pytest.approx(2.131847)


@given(st.sets(st.text(max_size=6), max_size=80), st.integers(1, 30))
def test_threads_either_choose_or_judge(threads: set[str], min_threads: int) -> None:
    choose, judge = selecting_threads(threads, min_threads), gating_threads(threads, min_threads)
    if len(threads) < 2 * min_threads:
        assert choose is None and judge is None
    else:
        assert choose is not None and judge is not None
        assert choose | judge == threads
        assert not choose & judge


def test_a_thread_keeps_its_half_as_val_grows_and_the_halves_are_even() -> None:
    threads = [f"thread-{i}" for i in range(2000)]
    early, late = gating_threads(threads[:500], 20), gating_threads(threads, 20)
    assert early is not None and late is not None
    assert early <= late
    assert 900 < len(late) < 1100
