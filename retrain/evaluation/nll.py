"""The one forward pass of training and measuring: negative log likelihood of the tokens that count."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from retrain.models.model import Compute
from retrain.training.batches import IGNORED, Group


def token_nll(model: Any, group: Group, compute: Compute) -> torch.Tensor:
    """Nats for every position of ``group`` that predicts, zero elsewhere: float32, of the shape of its labels.

    Logits are computed only where some row predicts, which saves the largest product of a small model on text that is
    only read.
    """
    columns, labels = group.columns, group.labels
    with compute.precision():
        if _keeps_logits(model):
            logits = model(input_ids=group.ids, use_cache=False, logits_to_keep=columns).logits
        else:
            logits = model(input_ids=group.ids, use_cache=False).logits[:, columns]
    losses = cross_entropy(
        logits.float().reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=IGNORED, reduction="none"
    )
    return losses.view(labels.shape)


def _keeps_logits(model: Any) -> bool:
    inner = getattr(model, "module", model)  # of the wrapping that several processes train in
    plain = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
    return "logits_to_keep" in inspect.signature(plain.forward).parameters
