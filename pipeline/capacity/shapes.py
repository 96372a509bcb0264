"""The shape of a language model, read from its ``config.json``: the numbers that its memory follows from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config.settings import BuiltinModel

PLAIN_BLOCKS = frozenset(
    {"bloom", "codegen", "falcon", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "mpt", "opt", "phi", "starcoder2"}
)
"""Model types whose feed-forward block has two matrices. Every other is taken for a gated one, with three, which is what
decoders have had since Llama, and the larger of the two."""

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder. ``width`` is the hidden size, ``inner`` that of the feed-forward block, ``heads`` share ``kv_heads`` keys
    and values of ``head_width``; ``tied`` when input and output embedding are one matrix; ``context`` in tokens, 0 where
    the configuration does not say."""

    vocabulary: int
    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    gated: bool
    tied: bool
    context: int

    @property
    def query_width(self) -> int:
        return self.heads * self.head_width

    @property
    def key_width(self) -> int:
        return self.kv_heads * self.head_width

    @property
    def linears(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of the matrices of one layer: queries, keys, values, output, then the feed-forward block."""
        up = ((self.width, self.inner),) * (2 if self.gated else 1)
        keys = (self.width, self.key_width)
        return ((self.width, self.query_width), keys, keys, (self.query_width, self.width), *up, (self.inner, self.width))

    @property
    def linear_parameters(self) -> int:
        """Parameters in the matrices of all layers: what 4-bit quantisation takes hold of."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linears)

    @property
    def other_parameters(self) -> int:
        """Embeddings and norms, which stay as they are."""
        return (1 if self.tied else 2) * self.vocabulary * self.width + (2 * self.layers + 1) * self.width

    def adapter_parameters(self, rank: int, *, head: bool) -> int:
        """Of a LoRA of ``rank`` on every matrix, r (inputs + outputs) each (Hu et al., 2106.09685); ``head`` when the
        output embedding has one too."""
        layers = self.layers * sum(inputs + outputs for inputs, outputs in self.linears)
        return rank * (layers + (self.width + self.vocabulary if head else 0))


def builtin_shape(model: BuiltinModel) -> Shape:
    """The built-in model's shape, from its settings."""
    return Shape(
        vocabulary=model.vocabulary,
        width=model.width,
        inner=model.width * 8 // 3,
        layers=model.layers,
        heads=model.heads,
        kv_heads=model.heads,
        head_width=model.width // model.heads,
        gated=True,
        tied=True,
        context=model.context,
    )


def shape_of(config: Mapping[str, Any]) -> Shape | None:
    """The shape that a ``config.json`` describes; None where it lacks a number, or is of a mixture of experts, whose memory
    follows from more than its shape."""
    config = config.get("text_config") or config
    if any(_number(config, name) > 1 for name in EXPERTS):
        return None
    width, layers = _number(config, "hidden_size", "n_embd", "d_model"), _number(config, "num_hidden_layers", "n_layer")
    heads, vocabulary = _number(config, "num_attention_heads", "n_head"), _number(config, "vocab_size")
    if not (width and layers and heads and vocabulary):
        return None
    return Shape(
        vocabulary=vocabulary,
        width=width,
        inner=_number(config, "intermediate_size", "n_inner", "ffn_dim") or 4 * width,
        layers=layers,
        heads=heads,
        kv_heads=_number(config, "num_key_value_heads") or heads,
        head_width=_number(config, "head_dim") or width // heads,
        gated=config.get("model_type") not in PLAIN_BLOCKS,
        tied=bool(config.get("tie_word_embeddings", True)),
        context=_number(config, "max_position_embeddings", "n_positions"),
    )


def _number(config: Mapping[str, Any], *names: str) -> int:
    """The first of ``names`` that holds a whole number; 0 without one."""
    found = (config.get(name) for name in names)
    return next((value for value in found if isinstance(value, int) and not isinstance(value, bool)), 0)
