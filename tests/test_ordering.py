"""Answers in any order, any number of times, leave in the order of their numbers, each once."""

from __future__ import annotations

from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import Tick, TickKind
from streams.owning.ordering import InOrder


def tick(number: int) -> Tick:
    return Tick("main", "main.a", number, TickKind.CAUGHT_UP, datetime(2026, 1, 2))


@given(st.lists(st.integers(1, 30)), st.integers(0, 10))
def test_released_in_order_and_once(numbers: list[int], last: int) -> None:
    order = InOrder(last)
    released: list[int] = []
    for position, number in enumerate(numbers, start=1):
        released += [item.number for item in order.add(tick(number))]
        assert released == list(range(last + 1, last + 1 + len(released)))
        assert order.last == last + len(released)
        seen = {each for each in numbers[:position] if each > last}
        assert order.waiting == len(seen) - len(released)
        assert order.last + 1 not in seen
