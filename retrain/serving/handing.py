"""Pieces on their way to those who asked: the first of an answer at once, then what has gathered a few times a second.

Whoever is handed a piece wakes a thread for it, which takes the interpreter from the thread that writes. A piece per token
would so cost a small model a sixth of its pace, and nobody reads that fast.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from retrain.serving.asked import Deliver, Job, Piece

EVERY_SECONDS = 0.02
"""How long text may gather before it is handed on."""


@dataclass(slots=True)
class _Line:
    """Where one answer's pieces go, and what has gathered of them."""

    deliver: Deliver
    begun: bool = False
    gathered: Piece | None = None


class Handing:
    """For the engine's thread. A job whose answer is not ``streamed`` gets it in one piece, at its end."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lines: dict[Job, _Line] = {}
        self._next = 0.0

    @property
    def jobs(self) -> tuple[Job, ...]:
        """The answers under way."""
        return tuple(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def expect(self, job: Job, deliver: Deliver) -> None:
        """From now on the pieces of a job go to ``deliver``, until one has a finish."""
        self._lines[job] = _Line(deliver)

    def hand(self, pieces: Sequence[tuple[Job, Piece]]) -> None:
        """To each receiver what is its and due, in one call; the rest gathers."""
        for job, piece in pieces:
            line = self._lines[job]
            line.gathered = piece if line.gathered is None else line.gathered.followed_by(piece)
        now = self._clock()
        all_due = now >= self._next
        if all_due:
            self._next = now + EVERY_SECONDS
        parcels: dict[Deliver, list[tuple[Job, Piece]]] = {}
        for job in self._lines if all_due else [job for job, _ in pieces]:
            line = self._lines[job]
            if line.gathered is not None and (
                line.gathered.finish is not None or (job.streamed and (all_due or not line.begun))
            ):
                parcels.setdefault(line.deliver, []).append((job, line.gathered))
                line.begun, line.gathered = True, None
        for parcel in parcels.values():
            for job, piece in parcel:
                if piece.finish is not None:
                    del self._lines[job]
        for deliver, parcel in parcels.items():
            deliver(parcel)
