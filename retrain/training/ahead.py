"""The next of several things made while the present one is used: one thread, one thing ahead.

torch's DataLoader makes batches ahead in processes only, each a copy of this one and none of them allowed near a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def made_ahead(
    make: Callable[[int], T], count: int, prepare: Callable[[], None] = lambda: None
) -> Iterator[Callable[[int], T]]:
    """Gives what ``make`` makes of a place, of ``count`` in all, and has the place after it made meanwhile, by a thread
    that has called ``prepare`` first and has ended when the context does. Whoever asks for a place gets what making it
    raised, and not before."""
    begun: dict[int, Future[T]] = {}
    with ThreadPoolExecutor(1, "next-batch", initializer=prepare) as thread:

        def get(place: int) -> T:
            made = begun.pop(place, None) or thread.submit(make, place)
            begun.clear()
            if place + 1 < count:
                begun[place + 1] = thread.submit(make, place + 1)
            return made.result()

        yield get
