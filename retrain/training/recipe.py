"""How weights move: what the optimizer is told."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config.settings import TrainSettings
from retrain.models.model import Compute


@dataclass(frozen=True, slots=True)
class Recipe:
    """Peak learning rate, warm-up as a share of the steps, then a cosine to zero."""

    lr: float
    warmup: float
    weight_decay: float
    clip: float
    accumulation: int
    optimizer: str
    beta2: float
    seed: int


def recipe_of(train: TrainSettings, compute: Compute, seed: int) -> Recipe:
    """What the settings ask for; ``auto`` is the optimizer that suits the device."""
    auto = "paged_adamw_8bit" if compute.on_gpu and not compute.sharded else "adamw_torch_fused"
    return Recipe(
        lr=train.lr,
        warmup=train.warmup,
        weight_decay=train.weight_decay,
        clip=train.clip,
        accumulation=train.accumulation,
        optimizer=auto if train.optimizer == "auto" else train.optimizer,
        beta2=0.999,
        seed=seed,
    )
