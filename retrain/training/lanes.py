"""Passes through a model side by side, each on one core.

Within one pass of a small model two threads mostly wait for each other: operations take microseconds, and on the two cores
of the log's figures a second thread saved nothing. So a CPU works on several chunks at once. No sum is ever split between
threads, so that no result depends on how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


class Lanes:
    """Carries out ``work`` on every item and gives the results in the order of the items; raises what ``work`` raises."""

    def __init__(self, pool: ThreadPoolExecutor | None = None) -> None:
        self._pool = pool

    def __call__(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        return map(work, items) if self._pool is None else self._pool.map(work, items)


IN_TURN = Lanes()
"""One after another, in the thread that asks."""


@contextmanager
def one_core_each(count: int) -> Iterator[Lanes]:
    """``count`` lanes on a CPU. Until they are closed this thread computes on one core too; grad and inference modes belong
    to a thread, so ``work`` sets its own."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if count <= 1:
            yield IN_TURN
        else:
            with ThreadPoolExecutor(count, "lane", initializer=torch.set_num_threads, initargs=(1,)) as pool:
                yield Lanes(pool)
    finally:
        torch.set_num_threads(before)
