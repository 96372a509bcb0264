"""A model in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from retrain.models.model import Compute


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model with where it computes and the token that fills its batches up."""

    model: Any
    compute: Compute
    pad: int
