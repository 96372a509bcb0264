"""Windows in a sentence: short, and every one of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.ranges import ranges


def test_neighbours_are_joined() -> None:
    assert ranges([0, 1, 2, 3]) == "0-3"
    assert ranges((4,)) == "4"
    assert ranges([9, 3, 1, 4]) == "1, 3-4, 9"
    assert ranges([]) == ""


@given(st.sets(st.integers(0, 60)))
def test_no_number_is_lost_or_added(numbers: set[int]) -> None:
    told = [part.split("-") for part in ranges(numbers).split(", ") if part]
    assert {number for part in told for number in range(int(part[0]), int(part[-1]) + 1)} == numbers
