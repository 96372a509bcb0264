"""NF4 weights of a small base, unpacked once for a CPU, where every pass would unpack all of them anew.

The numbers stay the same to the bit, those of NF4, and so do the answers; what it costs is memory, so large bases stay
packed. GPUs have kernels that read packed weights.
"""

from __future__ import annotations

from typing import Any

import bitsandbytes as bnb
import torch
from torch.nn import functional

from retrain.models.model import Compute

MOST_BYTES = 2**30
"""What all unpacked weights of a base may take in memory."""


class Unpacked(torch.nn.Linear):
    """A ``Linear4bit`` in ``dtype``, that of matrix products; results have their input's, as there."""

    def __init__(self, packed: Any, dtype: torch.dtype) -> None:
        bias = packed.bias is not None
        super().__init__(packed.in_features, packed.out_features, bias=bias, device="meta")
        weight = bnb.functional.dequantize_4bit(packed.weight.data, packed.weight.quant_state)
        self.weight = torch.nn.Parameter(weight.to(dtype), requires_grad=False)
        if bias:
            self.bias = torch.nn.Parameter(packed.bias.data.to(dtype), requires_grad=False)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return functional.linear(given.to(self.weight.dtype), self.weight, self.bias).to(given.dtype)


def unpack(network: Any, compute: Compute) -> None:
    """Replaces the packed layers of ``network`` by unpacked ones, one after another, where that pays and fits."""
    packed = [(name, part) for name, part in network.named_modules() if isinstance(part, bnb.nn.Linear4bit)]
    if compute.on_gpu or sum(_bytes(part, compute.dtype) for _, part in packed) > MOST_BYTES:
        return
    for name, part in packed:
        owner, _, own_name = name.rpartition(".")
        setattr(network.get_submodule(owner), own_name, Unpacked(part, compute.dtype))


def _bytes(part: Any, dtype: torch.dtype) -> int:
    return int(part.in_features * part.out_features * dtype.itemsize)
