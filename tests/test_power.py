"""What evidence could have shown, against simulation: the promised shares of repetitions come about."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.intervals import Interval, detectable, ratio_interval, t_quantile
from registry.power import LIKELY, MOST_THREADS, chance_within, smallest_seen, threads_for

CONFIDENCE = 0.95
SPREAD = 0.1
"""Standard deviation of the difference between threads, in nats per token."""
REPETITIONS = 1_500
SLACK = 0.04
"""Three standard errors of a share of that many repetitions, at most."""


def measured(rng: np.random.Generator, threads: int, true: float) -> Interval:
    """Threads of one length whose differences vary about ``true``."""
    found = ratio_interval(
        rng.normal(true, SPREAD, threads).tolist(),
        [1.0] * threads,
        [f"t{i}" for i in range(threads)],
        confidence=2 * CONFIDENCE - 1,
    )
    assert found is not None
    return found


@pytest.mark.parametrize("threads", [5, 15, 60])
def test_the_smallest_difference_is_seen_in_four_of_five_repetitions(threads: int) -> None:
    rng = np.random.default_rng(threads)
    df = threads - 1
    reach = (t_quantile(CONFIDENCE, df) + t_quantile(LIKELY, df)) * SPREAD / math.sqrt(threads)
    seen = np.mean([measured(rng, threads, -reach).high < 0 for _ in range(REPETITIONS)])
    assert seen == pytest.approx(LIKELY, abs=SLACK)
    found = [smallest_seen(measured(rng, threads, 0.0), CONFIDENCE) for _ in range(100)]
    assert np.mean([one for one in found if one is not None]) == pytest.approx(reach, rel=0.15)


@pytest.mark.parametrize(("threads", "margin", "true"), [(10, 0.1, 0.0), (20, 0.03, 0.0), (20, 0.1, 0.05), (8, 0.0, -0.1)])
def test_the_chance_to_pass_is_the_share_that_passes(threads: int, margin: float, true: float) -> None:
    rng = np.random.default_rng(7)
    found = [measured(rng, threads, true) for _ in range(REPETITIONS)]
    passes = np.mean([one.high <= margin for one in found])
    told = np.mean([chance_within(one, margin, CONFIDENCE, true=true) or 0.0 for one in found])
    assert told == pytest.approx(float(passes), abs=SLACK)


@pytest.mark.parametrize(("chance", "room"), [(0.5, 0.05), (LIKELY, 0.05), (LIKELY, 0.15)])
def test_so_many_threads_settle_it_in_such_a_share_of_repetitions(chance: float, room: float) -> None:
    rng = np.random.default_rng(3)
    df = 9.0
    known = Interval(0.0, -1.0, 1.0, SPREAD / math.sqrt(10), df, 10, 10, True)
    threads = threads_for(known, room, confidence=CONFIDENCE, chance=chance)
    assert threads is not None
    settled = np.mean([measured(rng, threads, 0.0).high <= room for _ in range(REPETITIONS)])
    assert settled == pytest.approx(chance, abs=SLACK + (0.1 if threads < 10 else 0.0))
    fewer = np.mean([measured(rng, max(2, threads // 2), 0.0).high <= room for _ in range(REPETITIONS)])
    assert fewer < settled


def test_more_room_and_less_certainty_need_fewer_threads() -> None:
    found = measured(np.random.default_rng(1), 12, 0.0)
    needed = [threads_for(found, room, confidence=CONFIDENCE) or MOST_THREADS for room in (0.01, 0.02, 0.05, 0.5)]
    assert needed == sorted(needed, reverse=True)
    even = threads_for(found, 0.02, confidence=CONFIDENCE)
    likely = threads_for(found, 0.02, confidence=CONFIDENCE, chance=LIKELY)
    assert even is not None and likely is not None and even < likely


def test_what_cannot_be_known_is_not_told() -> None:
    found = measured(np.random.default_rng(1), 12, 0.0)
    assert threads_for(found, 0.0, confidence=CONFIDENCE) is None
    assert threads_for(found, -0.1, confidence=CONFIDENCE) is None
    assert threads_for(found, 1e-6, confidence=CONFIDENCE) is None
    alone = ratio_interval([0.1, 0.2], [1.0, 1.0], ["t", "t"])
    assert alone is not None and alone.n_clusters == 1
    assert threads_for(alone, 1.0, confidence=CONFIDENCE) is None
    assert smallest_seen(alone, CONFIDENCE) is None and smallest_seen(None, CONFIDENCE) is None
    assert chance_within(alone, 1.0, CONFIDENCE) is None and chance_within(None, 1.0, CONFIDENCE) is None
    assert detectable(alone) == math.inf


def test_threads_that_all_agree_leave_no_chance() -> None:
    same = ratio_interval([0.25] * 3, [1.0] * 3, ["a", "b", "c"])
    assert same is not None and same.error == 0
    assert chance_within(same, 0.3, CONFIDENCE) == 1.0
    assert chance_within(same, 0.3, CONFIDENCE, true=0.4) == 0.0
    assert threads_for(same, 0.01, confidence=CONFIDENCE) == 2
