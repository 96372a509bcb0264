"""When a training keeps checkpoints, how each is scored, and when it stops early."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from pipeline.runs.runfiles import Loss, read_losses
from retrain.training.checkpoints import LOSSES, find
from retrain.training.early_stopping import Scored, mean_loss, should_stop


@dataclass(frozen=True, slots=True)
class Checkpointing:
    """When and where checkpoints are kept, how each is scored on val, and when training stops early.

    ``score`` gives the losses on val of the model as it stands, under a checkpoint's name. ``selecting`` are the chunks
    that may choose; None, and nothing stops early. The newest ``keep`` stay on the disk, fewer where they take more than
    ``most_bytes``.
    """

    folder: Path
    every: int
    keep: int
    base_id: str
    score: Callable[[str], list[Loss]]
    selecting: frozenset[str] | None
    patience: int
    min_delta: float
    most_bytes: int | None = None

    def history(self) -> list[Scored]:
        return [] if self.selecting is None else history_of(self.folder, self.selecting)

    def stops(self) -> bool:
        return should_stop(self.history(), self.patience, self.min_delta)


def history_of(folder: Path, selecting: Collection[str]) -> list[Scored]:
    """The loss of every checkpoint in ``folder`` so far on the chunks that may choose."""
    scored = []
    for checkpoint in find(folder):
        loss = mean_loss(read_losses(checkpoint.folder / LOSSES), selecting)
        if loss is not None:
            scored.append(Scored(checkpoint.step, loss))
    return scored
