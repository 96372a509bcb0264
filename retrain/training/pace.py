"""How fast a run trains, and how long it has to go: from the records of its steps."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from retrain.training.metrics import StepRecord

RECENT_STEPS = 16
"""Steps that the rate is taken over: enough to even out long and short batches, few enough to show a change."""


@dataclass(frozen=True, slots=True)
class Pace:
    """``tokens_per_second`` through the model over the recent steps. ``seconds_left`` to the last step of the schedule, at
    the pace since this process began, measuring at checkpoints included; stopping early ends it sooner."""

    tokens_per_second: float
    seconds_left: float


class Pacing:
    """Keeps the recent steps of a run that trains ``total`` tokens in all."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._first = (0, 0.0)
        self._recent: deque[tuple[int, float]] = deque(maxlen=RECENT_STEPS)

    def after(self, record: StepRecord) -> Pace | None:
        """The pace after a step; None where there is nothing yet to take it from, as at the first step of a resumed run."""
        now = (record.tokens, record.seconds)
        if not self._recent:
            self._first = now if record.step > 1 else (0, 0.0)
            self._recent.append(self._first)
        self._recent.append(now)
        recent, overall = _rate(self._recent[0], now), _rate(self._first, now)
        if not recent or not overall:
            return None
        return Pace(recent, max(0, self._total - record.tokens) / overall)


def _rate(earlier: tuple[int, float], later: tuple[int, float]) -> float:
    """Tokens per second between two moments; 0 where no time has passed."""
    tokens, seconds = later[0] - earlier[0], later[1] - earlier[1]
    return tokens / seconds if seconds > 0 else 0.0
