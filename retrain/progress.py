"""What a run says while it works: one value per thing worth showing, the same for a bar, a log line and a pipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Step = Literal["data", "base", "train", "evaluate", "retrieval", "finish"]


@dataclass(frozen=True, slots=True)
class Progress:
    """``done`` of ``total`` units of a step (both 0 where it has none); ``loss`` in nats per token, while training."""

    run_id: str
    step: Step
    done: int
    total: int
    text: str
    loss: float | None = None


Observer = Callable[[Progress], None]
