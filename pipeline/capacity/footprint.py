"""How much memory training takes, from the shape of the model and the settings: pure arithmetic, in bytes.

The activations were counted operation by operation in the blocks that ``transformers`` runs (pre-norm decoder, SDPA
attention, LoRA on every matrix) and agree with what autograd keeps, which ``tests/test_footprint.py`` weighs. The idea, and
the saving by recomputation, are those of Korthikanti et al., 2205.05198.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.capacity.shapes import Shape

NF4_CODES = 0.5
NF4 = NF4_CODES + 0.127 / 8
"""Bytes per parameter in NF4 with double quantisation (Dettmers et al., 2305.14314, section 3): codes, and their scales."""

ADAMW, ADAMW_8BIT = 8.0, 2.0 + 8 / 256
"""Bytes of optimizer state per trained parameter: two float32 moments, or two of 8 bits with a float32 scale per 256
(Dettmers et al., 2110.02861)."""

CUDA_RESERVE, CPU_RESERVE = 1 << 30, 950 << 20
"""What a process takes besides: CUDA's context and the workspaces of its libraries; on a CPU torch, transformers and PEFT
themselves, 946 MB resident when all is imported."""

CUDA_SLACK, CPU_SLACK = 1.1, 1.75
"""Allocators keep more than is asked of them. On a CPU the C library's heap is left in pieces: high-water marks were 1.4 to
1.7 times what was asked for by passes that are all alike, 2.0 to 2.1 times by those of mail, no two of which are
(docs/log.md)."""


@dataclass(frozen=True, slots=True)
class Device:
    """What trains: ``memory`` in bytes, ``bfloat16`` where the hardware has it, ``lanes`` the passes that go side by side
    (1 on a GPU)."""

    name: str
    gpu: bool
    memory: int
    bfloat16: bool
    lanes: int


@dataclass(frozen=True, slots=True)
class Load:
    """What is in the model at once, in its own tokens, padding included: while training (``pass_tokens``), and while
    measuring (``eval_tokens``)."""

    pass_tokens: int
    eval_tokens: int


@dataclass(frozen=True, slots=True)
class Training:
    """The settings that memory depends on, with every default resolved."""

    quantize: bool
    bfloat16: bool
    checkpointing: bool
    rank: int
    head: bool
    optimizer: str
    shards: int = 1
    """Processes over which weights are shared out while training."""
    cards: int = 1
    """GPUs of one machine over which the base is laid, layer by layer, when training is over and it is measured."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes by what they hold. ``activations`` and ``logits`` belong to the training pass, ``evaluation`` to the measuring
    one; the two never meet, so the larger counts. ``elsewhere`` are those of weights, adapter, gradients and optimizer that
    other processes hold while this one trains; when training is over a single process measures, with weights and adapter
    on ``cards`` GPUs. ``slack`` is what the allocator keeps of all but the reserve, as a factor."""

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    evaluation: int
    reserve: int
    slack: float
    elsewhere: int = 0
    cards: int = 1

    @property
    def total(self) -> int:
        steady = self.weights + self.adapter + self.gradients + self.optimizer - self.elsewhere
        trains = steady + max(self.activations + self.logits, self.evaluation)
        measures = (self.weights + self.adapter) // self.cards + self.evaluation
        return self.reserve + round(self.slack * (max(trains, measures) if self.elsewhere else trains))


def footprint(shape: Shape, training: Training, load: Load, device: Device) -> Footprint:
    """The peak of a training process.

    Weights: NF4 for the matrices of the layers; PEFT's preparation for k-bit training holds everything else in float32, as
    a CPU does with all weights. Unquantised, a GPU holds them in the type of its products. Adapter and gradients are
    float32, the adapter once more in the type of the products; on a CPU each lane holds gradients of its own.

    Logits: of each predicted token the vocabulary times float32 log-probabilities, their gradient, that of the logits,
    and the logits in the type of the products: 14 bytes in bfloat16, 12 in float32, and all tokens are taken as predicted.
    """
    product = 2 if training.bfloat16 else 4
    stream = 4 if training.quantize or not device.gpu else product
    trained = shape.adapter_parameters(training.rank, head=training.head)
    matrices = NF4 if training.quantize else stream
    cast = 0  # copies of weights in the type of the products, kept for the backward pass
    if product != stream:
        cast = product * (shape.vocabulary * shape.width + (0 if training.quantize else shape.linear_parameters))
    largest = max(inputs * outputs for inputs, outputs in shape.linears) * product if training.quantize else 0
    kept = layer_activations(shape, training.rank, inner=stream if training.quantize else product, product=product)
    ends = 8 * shape.width  # the last norm and the head keep their input, too
    kept_by_all = ends + shape.layers * (shape.width * stream if training.checkpointing else kept)
    per_token = kept_by_all + _workspace(shape, stream) + (kept if training.checkpointing else 0)
    read = 2 * shape.width * stream + _workspace(shape, stream)
    weights = round(shape.linear_parameters * matrices) + shape.other_parameters * stream
    # What stands outside the layers is gathered for the whole of a pass, and two layers at a time: one computes, one comes.
    codes = NF4_CODES if training.quantize else stream  # scales are shared out by nobody
    state = ADAMW_8BIT if "8bit" in training.optimizer else ADAMW
    in_layers = shape.linear_parameters * codes + shape.adapter_parameters(training.rank, head=False) * (8 + state)
    parted = round(in_layers) * max(0, shape.layers - 2) // shape.layers
    return Footprint(
        weights=weights,
        adapter=trained * (4 + (product if product != 4 else 0)),
        gradients=trained * 4 * (1 + device.lanes),
        optimizer=round(trained * state),
        activations=device.lanes * (load.pass_tokens * per_token + largest + cast),
        logits=device.lanes * load.pass_tokens * shape.vocabulary * (12 if product == 4 else 14),
        evaluation=load.eval_tokens * (read + shape.vocabulary * (8 if product == 4 else 10))
        + device.lanes * (largest + cast),
        reserve=CUDA_RESERVE if device.gpu else CPU_RESERVE,
        slack=CUDA_SLACK if device.gpu else CPU_SLACK,
        elsewhere=parted * (training.shards - 1) // training.shards,
        cards=training.cards if device.gpu else 1,
    )


def layer_activations(shape: Shape, rank: int, *, inner: int, product: int) -> int:
    """Bytes that one layer keeps per token for the backward pass; ``product`` and ``inner`` are the bytes of a number as
    matrices take it in and as those of the feed-forward block give it out.

    Two norms keep their input in float32 with a scale each. LoRA keeps the input of every matrix: in bfloat16 each of
    queries, keys, values, output, gate and up casts a copy of its own, in float32 they share three. Attention keeps
    queries, keys, values, output and a float32 per head. The activation function and the gate's product keep three inner
    values, the last matrix its input, and each LoRA the ``rank`` between its own.
    """
    apart = product != 4
    norms = 2 * (4 * shape.width + 4)
    inputs = (6 if apart else 3) * product * shape.width
    attention = product * ((2 if apart else 1) * shape.query_width + 2 * shape.key_width) + 4 * shape.heads
    block = ((3 if shape.gated else 1) * inner + product) * shape.inner
    return norms + inputs + attention + block + len(shape.linears) * product * rank


def _workspace(shape: Shape, stream: int) -> int:
    """Bytes per token of results on their way through one layer: two inner gradients and two of the stream."""
    return 2 * stream * (shape.inner + shape.width)
