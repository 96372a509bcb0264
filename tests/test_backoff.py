"""The waits between attempts: bounded, growing in the mean, and never in step."""

from __future__ import annotations

from itertools import islice
from random import Random
from statistics import mean

from hypothesis import given
from hypothesis import strategies as st

from streams.feeds.backoff import MOST_SECONDS, delays


@given(seed=st.integers())
def test_each_wait_is_below_a_bound_that_doubles_up_to_five_minutes(seed: int) -> None:
    for attempt, seconds in enumerate(islice(delays(Random(seed)), 40)):
        assert 0 <= seconds <= min(2.0**attempt, MOST_SECONDS)


def test_waits_fill_their_bounds_and_differ() -> None:
    late = [next(islice(delays(Random(seed)), 12, None)) for seed in range(400)]
    assert len(set(late)) == len(late)
    assert 0.4 * MOST_SECONDS < mean(late) < 0.6 * MOST_SECONDS
    assert max(late) > 0.9 * MOST_SECONDS and min(late) < 0.1 * MOST_SECONDS
