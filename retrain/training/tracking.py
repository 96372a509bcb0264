"""TensorBoard and Weights & Biases, through transformers' own callbacks, for runs that ask for them by ``train.report_to``.

They hear the figures of ``metrics.jsonl`` and the loss on val at each checkpoint, and the settings of the trainer: no text
of a mail. Everything stays in the run's folder, also with W&B, unless ``WANDB_MODE`` says otherwise.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers.integrations.integration_utils import TensorBoardCallback, WandbCallback

from pipeline.home import private_dir

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb"}


def missing(names: Sequence[str]) -> list[str]:
    """Those of the trackers asked for whose package is not installed."""
    return [name for name in names if importlib.util.find_spec(PACKAGES[name]) is None]


def trackers(names: Sequence[str], folder: Path, run_id: str, from_step: int) -> list[Any]:
    """The callbacks of the trackers that are installed; what was told of steps after ``from_step`` is told anew."""
    absent = missing(names)
    found: list[Any] = []
    if "tensorboard" in names and "tensorboard" not in absent:
        from torch.utils.tensorboard import SummaryWriter

        place = private_dir(folder / "tensorboard")
        found.append(TensorBoardCallback(SummaryWriter(str(place), purge_step=from_step + 1)))
    if "wandb" in names and "wandb" not in absent:
        os.environ.pop("WANDB_DISABLED", None)
        for name, value in (("WANDB_MODE", "offline"), ("WANDB_PROJECT", "mailtide"), ("WANDB_DISABLE_GIT", "true")):
            os.environ.setdefault(name, value)
        os.environ.update(WANDB_DIR=str(private_dir(folder / "wandb")), WANDB_RUN_ID=run_id, WANDB_RESUME="allow")
        found.append(WandbCallback())
    return found
