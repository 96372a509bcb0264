"""Which attention kernels a run computes with. All are exact: chunks of a pass are rows, padded on the right where no token
looks, so that none of them needs a mask; they differ in rounding, in speed, and in what they run on."""

from __future__ import annotations

import os

import torch
from transformers.utils import is_flash_attn_2_available

from pipeline.errors import RunError
from retrain.models.model import Compute

FLASH = "flash_attention_2"


def kernels(asked: str, compute: Compute) -> str | None:
    """``model.attention`` as transformers takes it; None for ``auto``: torch's own, or the plain ones of a model that has
    no others. Raises ``RunError`` where FlashAttention is asked for and cannot run."""
    if asked == "auto":
        return None
    if asked == FLASH:
        _require_flash(compute)
        os.environ.setdefault("FLASH_ATTENTION_DETERMINISTIC", "1")  # a backward pass whose sums have one order
    return asked


def _require_flash(compute: Compute) -> None:
    hint = "set model.attention to auto; on a GPU torch's own kernels are of that kind, too"
    if not compute.on_gpu:
        raise RunError("model.attention asks for FlashAttention, which needs a GPU, and this machine has none", hint=hint)
    if compute.dtype is not torch.bfloat16:
        raise RunError("model.attention asks for FlashAttention, which needs model.dtype bfloat16", hint=hint)
    if not is_flash_attn_2_available():
        raise RunError("model.attention asks for FlashAttention, whose package flash-attn is not installed", hint=hint)
