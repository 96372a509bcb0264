"""A sitting: which pair is shown next, in which order, and what was said of it. No side knows of page or terminal."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.arrival.people import PeopleKey
from pipeline.runs.spotsheet import Check, Line, Sheet
from registry.spotcheck import Said

Choice = Literal["1", "2", "tie", "bad", "skip", "back"]

MEANS: dict[str, Said] = {"1": "first", "2": "second", "tie": "tie", "bad": "both_bad"}
"""Choices that are verdicts."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """A line of the sheet with its two replies in blind order; the names are for the store alone."""

    line: Line
    first_name: str
    second_name: str

    @property
    def first(self) -> str:
        return self.line.written[self.first_name]

    @property
    def second(self) -> str:
        return self.line.written[self.second_name]


Note = Callable[[Pairing, Said], None]


def pairings(check: Check, sheet: Sheet, key: PeopleKey) -> list[Pairing]:
    """The lines whose replies differ, in the sheet's order. Who stands first is drawn by a hash under the home's secret, so
    it is the same after a restart, and nobody who sees the page can work it out."""
    one, other = (side.name for side in check.sides)
    found = []
    for line in sheet.lines:
        if line.written[one] != line.written[other]:
            drawn = "\0".join(("spot check", str(check.seed), *sorted((one, other)), line.message_key)).encode()
            swapped = hashlib.blake2b(drawn, key=key.secret).digest()[0] % 2 == int(one < other)
            found.append(Pairing(line, other, one) if swapped else Pairing(line, one, other))
    return found


class Sitting:
    """Goes through the pairs that nobody has judged yet, one at a time. Safe to use from several threads.

    ``note`` keeps a verdict; what it raises leaves the pair where it is. What is skipped comes again in the next
    sitting.
    """

    def __init__(self, pairs: Sequence[Pairing], judged: Collection[str], note: Note) -> None:
        self._queue = [pair for pair in pairs if pair.line.message_key not in judged]
        self._before = len(pairs) - len(self._queue)
        self._note = note
        self._place = 0
        self._lock = threading.Lock()

    @property
    def total(self) -> int:
        """All pairs, judged before or not."""
        return self._before + len(self._queue)

    @property
    def number(self) -> int:
        """Of the pair that is shown, from 1; beyond :attr:`total` at the end."""
        return self._before + self._place + 1

    @property
    def current(self) -> Pairing | None:
        """What is shown now; None at the end."""
        return self._queue[self._place] if self._place < len(self._queue) else None

    def take(self, number: int, choice: Choice) -> bool:
        """Takes what was said of pair ``number``; False, and nothing done, where another is shown by now."""
        with self._lock:
            pair = self.current
            if pair is None or number != self.number:
                return False
            if choice == "back":
                self._place = max(0, self._place - 1)
                return True
            if choice != "skip":
                self._note(pair, MEANS[choice])
            self._place += 1
            return True
