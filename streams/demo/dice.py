"""Seeded chance that gives the same bytes under every Python.

Only ``random.Random.random()`` of a string seed is used: it is the one sequence that the standard library promises to
keep; ``choice``, ``shuffle`` and ``sample`` may change between versions.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """One stream of chance, named by what it decides, so that one decision more here moves nothing elsewhere."""

    def __init__(self, seed: int, name: str) -> None:
        self._seed = seed
        self._name = name
        self._random = random.Random(f"mailtide demo {seed} {name}")

    def fork(self, name: str) -> Dice:
        """An independent stream for a part of what this one decides."""
        return Dice(self._seed, f"{self._name}/{name}")

    def unit(self) -> float:
        """A number in [0, 1)."""
        return self._random.random()

    def chance(self, probability: float) -> bool:
        return self.unit() < probability

    def between(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, both included."""
        return low + int(self.unit() * (high - low + 1))

    def pick(self, items: Sequence[T]) -> T:
        return items[int(self.unit() * len(items))]

    def pick_weighted(self, items: Sequence[T], weights: Sequence[float]) -> T:
        """One of ``items``, in proportion to ``weights`` (any positive scale)."""
        target = self.unit() * math.fsum(weights)
        for item, weight in zip(items, weights, strict=True):
            target -= weight
            if target < 0:
                return item
        return items[-1]

    def some(self, items: Sequence[T], count: int) -> tuple[T, ...]:
        """Up to ``count`` different places of ``items``, in drawn order."""
        rest = list(items)
        taken: list[T] = []
        while rest and len(taken) < count:
            taken.append(rest.pop(int(self.unit() * len(rest))))
        return tuple(taken)

    def wait(self, mean: float) -> float:
        """An exponential waiting time with this mean, in its unit."""
        return -mean * math.log(1.0 - self.unit())

    def hexadecimal(self, digits: int) -> str:
        return "".join("0123456789abcdef"[int(self.unit() * 16)] for _ in range(digits))
