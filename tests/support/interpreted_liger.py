"""A model with and without Liger's kernels, on a CPU by Triton's interpreter: ``TRITON_INTERPRET=1 python -m
tests.support.interpreted_liger``. Prints the relative differences of losses and gradients, in float32.

Triton's interpreter leaves two things to the compiler that Liger's norm needs: a plain number as a float32 scalar, and the
reciprocal root of CUDA's device library. Numbers of bfloat16 it multiplies as the whole numbers of the same bits, so
nothing can be told of these.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import triton.language as tl
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM
from triton.language.extra import libdevice
from triton.runtime import interpreter

from retrain.evaluation.nll import token_nll
from retrain.models.liger import fuse
from retrain.models.model import Compute
from retrain.training.batches import Example, collate

SHAPE = LlamaConfig(
    vocab_size=97, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
)
ROWS = [Example(str(n), tuple((n * k) % 95 + 2 for k in range(1, n)), 1, 0) for n in (19, 12)]

Measured = tuple[torch.Tensor, tuple[torch.Tensor, ...]]


def complete_interpreter() -> None:
    """Gives the interpreter what compiled kernels have."""
    convert: Callable[[Any], Any] = interpreter._implicit_cvt

    def scalar(value: Any) -> Any:
        if isinstance(value, float):
            return tl.tensor(interpreter.TensorHandle(np.array([value], np.float32), tl.float32), tl.float32)
        return convert(value)

    def rsqrt(value: Any) -> Any:
        return tl.tensor(interpreter.TensorHandle(1 / np.sqrt(value.handle.data), value.dtype.scalar), value.type)

    interpreter._implicit_cvt = scalar
    libdevice.rsqrt = rsqrt


def measure(*, liger: bool) -> Measured:
    """The loss per token and the gradients of a LoRA that is not zero."""
    compute = Compute(torch.device("cpu"), torch.float32, 1)
    torch.manual_seed(3)
    network: Any = LlamaForCausalLM(SHAPE)
    network.requires_grad_(False)
    if liger:
        fuse(network)
    torch.manual_seed(4)
    model = get_peft_model(network, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    nats = token_nll(model, collate(ROWS, 1), compute)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return nats.detach(), torch.autograd.grad(nats.sum(), trained)


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


def main() -> None:
    complete_interpreter()
    fused, gradients = measure(liger=True)
    plain, expected = measure(liger=False)
    worst = max(apart(one, other) for one, other in zip(gradients, expected, strict=True))
    json.dump({"loss": apart(fused, plain), "gradient": worst}, sys.stdout)


if __name__ == "__main__":
    main()
