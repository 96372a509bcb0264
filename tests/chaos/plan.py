"""Which part is killed when: drawn from a seed before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

TWO_AT_ONCE = 0.2
"""The share of blows that hit two parts, the second while the first is down."""
LONGEST_WAIT = 1.0
LONGEST_ABSENCE = 1.5


@dataclass(frozen=True, slots=True)
class Blow:
    """Some seconds after mail was delivered, one or two parts are killed, and left dead for ``absence`` seconds."""

    parts: int
    wait: float
    absence: float


def blows(rng: Random, kills: int) -> list[Blow]:
    """Blows with ``kills`` kills in all."""
    found: list[Blow] = []
    left = kills
    while left:
        parts = 2 if left > 1 and rng.random() < TWO_AT_ONCE else 1
        found.append(Blow(parts, rng.uniform(0.0, LONGEST_WAIT), rng.choice((0.0, rng.uniform(0.0, LONGEST_ABSENCE)))))
        left -= parts
    return found


class Deck:
    """Deals names in random order, each once a round, so that none is spared for long. One that cannot be killed just now
    (a training process while nothing trains) comes as soon as it can."""

    def __init__(self, rng: Random, names: Sequence[str]) -> None:
        self._rng = rng
        self._names = tuple(names)
        self._cards: list[str] = []

    def deal(self, can: Callable[[str], bool]) -> str | None:
        """The next name that can be killed; None when none can."""
        for _ in range(2):
            for place, name in enumerate(self._cards):
                if can(name):
                    return self._cards.pop(place)
            self._cards += self._rng.sample(self._names, len(self._names))
        return None
