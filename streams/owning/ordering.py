"""Puts answers back into the order of their numbers: parsers answer in any order, the owner takes strictly in order."""

from __future__ import annotations

from pipeline.domain import Item


class InOrder:
    """The answers of one feed that wait for one before them.

    The buffer is bounded by what a feed may have in flight, which is for the feed to keep to; a number already released
    is a repeat and dropped.
    """

    def __init__(self, last: int) -> None:
        """``last`` is the number that was taken last; 0 before the first."""
        self._last = last
        self._waiting: dict[int, Item] = {}

    @property
    def last(self) -> int:
        """The number released last."""
        return self._last

    @property
    def waiting(self) -> int:
        """How many answers wait for one before them."""
        return len(self._waiting)

    def add(self, item: Item) -> list[Item]:
        """Takes one answer, and releases those that nothing is missing before any more, in order."""
        if item.number <= self._last:
            return []
        self._waiting.setdefault(item.number, item)
        ready: list[Item] = []
        while (following := self._waiting.pop(self._last + 1, None)) is not None:
            ready.append(following)
            self._last += 1
        return ready
