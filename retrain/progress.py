"""What a run says while it works: one value per thing worth showing, the same for a bar, a log line and a pipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Step = Literal["data", "base", "train", "evaluate", "retrieval", "replies", "benchmarks", "finish"]


@dataclass(frozen=True, slots=True)
class Progress:
    """``done`` of ``total`` units of a step (both 0 where it has none). While training: ``loss`` of the last step in nats
    per token, the pace, and the seconds left to the last step; None where they are not known."""

    run_id: str
    step: Step
    done: int
    total: int
    text: str
    loss: float | None = None
    tokens_per_second: float | None = None
    seconds_left: float | None = None


Observer = Callable[[Progress], None]
