"""Keeps the libraries of training from asking the network or telling anyone. To be called before they are imported."""

from __future__ import annotations

import os

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DO_NOT_TRACK": "1",
    "WANDB_DISABLED": "true",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "BITSANDBYTES_NOWELCOME": "1",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it some CUDA sums come out in another order each time
}


def keep_offline() -> None:
    """Sets the environment of this process; ``huggingface_hub`` and CUDA read it once, when first imported."""
    os.environ.update(OFFLINE)
