"""Liger's kernels (fused, in Triton) in place of a model's own norms and gated activations: the same functions, rounded
elsewhere, which keep less for the backward pass.

Its rotary positions and its loss are left out. The first can only be swapped for every model of a kind in a process that
goes on to other runs; the second gives one number for a batch, where losses per chunk are kept, and knows no LoRA on the
head.
"""

from __future__ import annotations

import importlib.metadata
import sys
from importlib.util import find_spec
from typing import Any

from pipeline.errors import RunError
from retrain.models.model import Compute

PACKAGE = "liger-kernel"
HINT = "set model.kernels to torch"
UNUSED = {"rope": False, "cross_entropy": False, "fused_linear_cross_entropy": False}


def require_liger(compute: Compute) -> None:
    """Raises ``RunError`` where Liger's kernels cannot run."""
    if not compute.on_gpu:
        raise RunError("model.kernels asks for Liger's, which need a GPU, and this machine has none", hint=HINT)
    if find_spec("liger_kernel") is None:
        raise RunError(f"model.kernels asks for Liger's, whose package {PACKAGE} is not installed", hint=HINT)


def fuse(model: Any) -> None:
    """Gives ``model``, and no other, Liger's kernels. Raises ``RunError`` for a kind of model that Liger does not know."""
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN
    from transformers.integrations.liger import apply_liger_kernel

    kind = model.config.model_type
    if kind not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        raise RunError(f"model.kernels asks for Liger's, which has none for models of the kind {kind}", hint=HINT)
    home = sys.modules[type(model).__module__]
    before = dict(vars(home))
    apply_liger_kernel(model, UNUSED)
    for name, value in before.items():  # it replaces the classes that later models are built of, too
        setattr(home, name, value)


def version() -> str:
    """Of the package, as a run's environment records it."""
    return importlib.metadata.version(PACKAGE)
