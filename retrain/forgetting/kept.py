"""What one training of the study left: kept in a folder of its own, so that a study that was stopped goes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from safetensors.torch import load_file, save_file

from pipeline.home import atomic_path, private_dir, write_atomic
from pipeline.runs.runfiles import Loss, read_losses, write_losses
from pipeline.sampling.coverage import read_coverage, write_coverage
from pipeline.strict import Strict

LOSSES, COVERAGE, WEIGHTS, COST = "losses.parquet", "coverage.parquet", "adapter.safetensors", "cost.json"


class Cost(Strict):
    """Of one training: tokens by the model's tokenizer, wall and processor seconds of the training alone."""

    steps: int
    new_tokens: int
    rehearsal_tokens: int
    wall_s: float
    cpu_s: float
    rehearsed_windows: dict[int, int]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the trainings of one arm and seed are kept, a folder per window."""

    root: Path

    def window(self, idx: int) -> Path:
        return self.root / f"window={idx:03d}"

    def done(self, idx: int) -> bool:
        """Whether the training on window ``idx`` was finished."""
        return (self.window(idx) / COST).is_file()

    def keep(self, idx: int, losses: list[Loss], coverage: pa.Table | None, weights: dict[str, Any], cost: Cost) -> None:
        """Writes a training's results, the cost last; only the newest weights of the arm are kept."""
        folder = private_dir(self.window(idx))
        write_losses(folder / LOSSES, losses)
        if coverage is not None:
            write_coverage(folder / COVERAGE, coverage)
        with atomic_path(folder / WEIGHTS) as temporary:
            save_file(weights, temporary)
        write_atomic(folder / COST, cost.model_dump_json(indent=1).encode() + b"\n")
        (self.window(idx - 1) / WEIGHTS).unlink(missing_ok=True)

    def losses(self, idx: int) -> list[Loss]:
        return read_losses(self.window(idx) / LOSSES)

    def cost(self, idx: int) -> Cost:
        return Cost.model_validate_json((self.window(idx) / COST).read_bytes())

    def coverage(self, idx: int) -> pa.Table:
        return read_coverage(self.window(idx) / COVERAGE)

    def has_weights(self, idx: int) -> bool:
        return (self.window(idx) / WEIGHTS).is_file()

    def weights(self, idx: int) -> dict[str, Any]:
        return dict(load_file(self.window(idx) / WEIGHTS))
