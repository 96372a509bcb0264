"""The environment that training's libraries are imported under: no network, no telemetry, and kind to busy machines."""

from __future__ import annotations

import logging
import os

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DO_NOT_TRACK": "1",
    "WANDB_DISABLED": "true",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "BITSANDBYTES_NOWELCOME": "1",
    # Spinning at barriers beside another busy process, two threads do a third of the work of one per CPU-second.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Without it some CUDA sums come out in another order each time.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}

KERNELS_KEPT = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64", "LRU_CACHE_CAPACITY": "16"}
"""oneDNN compiles the products of a CPU for each shape of batch and keeps the newest 1,024 of them; torch keeps as many of
what it prepares for each, with their working memory. That is gigabytes, where hardly two batches are alike (docs/log.md).
Whoever has set a number keeps it."""


TIED = "Model has `tie_word_embeddings=True`"
"""How a warning begins that is given at every load of an adapter on the built-in model; it concerns merging weights."""


def keep_offline() -> None:
    """Sets the environment of this process; the libraries read it once, when they are first imported."""
    os.environ.update(OFFLINE)
    for name, number in KERNELS_KEPT.items():
        os.environ.setdefault(name, number)
    # On CPUs with AVX512-BF16 it advises fetching a kernel from the Hub, at every start.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
