"""How far a consumer is in one partition: pure, and written beside the offset that the consumer commits.

A consumer that takes an event of one mailbox while another mailbox's is still refused is not at one offset. So beside the
committed offset, the lowest unfinished one, stands one character per offset from there on, in the commit's metadata:
``+`` finished, ``-`` not, and a digit or letter for how often it was refused. Both are stored in one step.
"""

from __future__ import annotations

import string

COUNTS = string.digits[1:] + string.ascii_lowercase + string.ascii_uppercase
"""The refusals 1 to 61; more are remembered as 61."""
FINISHED, UNTOUCHED = "+", "-"
OURS = "mailtide:"
"""What our metadata begin with: other programs, and people who reset offsets, write their own."""
LONGEST = 4_000
"""Characters at most: brokers refuse metadata above 4,096. What does not fit is done again after a restart."""


class Progress:
    """Which offsets are finished, and how often others were refused."""

    def __init__(self, start: int, marks: str = "") -> None:
        """As committed: ``start`` is the lowest unfinished offset, ``marks`` what was written beside it."""
        self._start = start
        self._finished: set[int] = set()
        self._refusals: dict[int, int] = {}
        for offset, mark in enumerate(marks.removeprefix(OURS) if marks.startswith(OURS) else "", start):
            if mark == FINISHED:
                self._finished.add(offset)
            elif mark in COUNTS:
                self._refusals[offset] = COUNTS.index(mark) + 1

    def finished(self, offset: int) -> bool:
        return offset < self._start or offset in self._finished

    def refusals(self, offset: int) -> int:
        """How often the event at an unfinished offset was refused."""
        return self._refusals.get(offset, 0)

    def finish(self, offset: int) -> None:
        if offset >= self._start:
            self._finished.add(offset)
        self._refusals.pop(offset, None)

    def refuse(self, offset: int) -> int:
        """Counts a refusal, and says how many there are now."""
        self._refusals[offset] = self.refusals(offset) + 1
        return self._refusals[offset]

    def advance(self, lowest: int) -> None:
        """Everything below ``lowest`` is finished."""
        self._start = max(self._start, lowest)
        self._finished = {offset for offset in self._finished if offset >= self._start}
        self._refusals = {offset: count for offset, count in self._refusals.items() if offset >= self._start}

    def learn(self, other: Progress) -> None:
        """Takes over what ``other`` knows of the same partition: what either saw finished is finished."""
        for offset, count in other._refusals.items():
            if not self.finished(offset):
                self._refusals[offset] = max(count, self.refusals(offset))
        for offset in other._finished:
            self.finish(offset)
        self.advance(other._start)

    @property
    def start(self) -> int:
        """The offset to commit."""
        return self._start

    @property
    def marks(self) -> str:
        """What to commit beside it."""
        known = self._finished | self._refusals.keys()
        last = min(max(known, default=self._start - 1), self._start + LONGEST - 1)
        return OURS + "".join(self._mark(offset) for offset in range(self._start, last + 1))

    def _mark(self, offset: int) -> str:
        if offset in self._finished:
            return FINISHED
        refusals = self.refusals(offset)
        return COUNTS[min(refusals, len(COUNTS)) - 1] if refusals else UNTOUCHED
