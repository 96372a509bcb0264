"""Where the time of training went: passes side by side share out what their batch took."""

from __future__ import annotations

import pytest

from retrain.training.clock import Clock


def test_passes_side_by_side_share_out_the_time_of_their_batch() -> None:
    clock = Clock()
    clock.passes([(1.0, 3.0, 6.0), (0.5, 1.5, 3.5)], 4.0)
    assert clock.seconds == pytest.approx({"forward": 1.5, "backward": 2.5})
    clock.passes([(0.0, 1.0, 1.0)], 2.0)
    assert clock.seconds == pytest.approx({"forward": 3.5, "backward": 2.5})


def test_a_batch_without_passes_takes_no_time() -> None:
    clock = Clock()
    clock.passes([], 1.0)
    assert clock.seconds == {}


def test_what_is_timed_adds_up_and_is_given_back() -> None:
    clock = Clock()
    assert [clock.timed("measuring", lambda: 7), clock.timed("measuring", lambda: 8)] == [7, 8]
    assert set(clock.seconds) == {"measuring"} and clock.seconds["measuring"] > 0
