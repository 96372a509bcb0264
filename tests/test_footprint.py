"""The estimate of memory against what torch really keeps, and the shape against real models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

from pipeline.capacity.footprint import CPU_RESERVE, CPU_SLACK, Device, Load, Training, footprint, layer_activations
from pipeline.capacity.shapes import Shape, builtin_shape, shape_of
from pipeline.config.settings import BuiltinModel, ModelSettings, TrainSettings
from retrain.evaluation.nll import token_nll
from retrain.models.base import new_network
from retrain.models.model import choose_compute, fresh_adapter, load_base
from retrain.training.batches import Example, collate

CONFIG = LlamaConfig(
    vocab_size=1024,
    hidden_size=256,
    intermediate_size=704,
    num_hidden_layers=3,
    num_attention_heads=8,
    num_key_value_heads=4,
    max_position_embeddings=512,
    tie_word_embeddings=True,
)
ROWS, LENGTH, RANK = 4, 512, 16
GPU = Device("a GPU", True, 24 << 30, True, 1)


def shape() -> Shape:
    found = shape_of(CONFIG.to_dict())
    assert found is not None
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(CONFIG).save_pretrained(str(folder))
    return folder


def adapted(base: Path, dtype: Any, *, quantize: bool, checkpointing: bool) -> tuple[Any, Any]:
    compute = choose_compute(ModelSettings(dtype=dtype), 1)
    network = load_base(base, compute, quantize=quantize)
    train = TrainSettings(lora_r=RANK)
    return fresh_adapter(
        network, train, builtin=True, quantize=quantize, checkpointing=checkpointing, seed=0
    ).train(), compute  # fmt: skip


def kept_by_autograd(model: Any, compute: Any) -> int:
    """Bytes that the forward pass of one group keeps for the backward pass, the model's own tensors apart."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            kept[place] = tensor  # holding it keeps its place from being given to another
        return tensor

    rows = [Example(f"row {number}", tuple(range(LENGTH)), 1, 0) for number in range(ROWS)]
    group = collate(rows, 0)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        token_nll(model, group, compute).sum()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("quantize", [True, False], ids=["nf4", "full"])
def test_the_activations_of_a_layer_are_those_that_autograd_keeps(base: Path, dtype: str, quantize: bool) -> None:
    model, compute = adapted(base, dtype, quantize=quantize, checkpointing=False)
    product = 2 if dtype == "bfloat16" else 4
    per_token = layer_activations(shape(), RANK, inner=4 if quantize else product, product=product)
    tokens, layers = ROWS * LENGTH, CONFIG.num_hidden_layers
    log_probabilities = 4 * tokens * CONFIG.vocab_size
    copies = 0 if dtype == "float32" or quantize else product * shape().linear_parameters
    ends = tokens * 8 * CONFIG.hidden_size
    assert kept_by_autograd(model, compute) == pytest.approx(
        tokens * layers * per_token + ends + log_probabilities + copies, rel=0.03
    )


def test_with_recomputation_only_the_stream_between_layers_is_kept(base: Path) -> None:
    model, compute = adapted(base, "float32", quantize=True, checkpointing=True)
    tokens, layers = ROWS * LENGTH, CONFIG.num_hidden_layers
    stream = 4 * CONFIG.hidden_size
    assert kept_by_autograd(model, compute) == pytest.approx(
        tokens * ((layers + 2) * stream + 4 * CONFIG.vocab_size), rel=0.03
    )  # fmt: skip


def test_weights_and_adapter_are_counted_to_the_byte(base: Path) -> None:
    training = Training(quantize=False, bfloat16=False, checkpointing=False, rank=RANK, head=True, optimizer="adamw_torch")
    device = Device("cpu", False, 8 << 30, False, 1)
    found = footprint(shape(), training, Load(ROWS * LENGTH, LENGTH), device)
    model, _ = adapted(base, "float32", quantize=False, checkpointing=False)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert (found.weights, found.adapter, found.optimizer) == (4 * frozen, 4 * trained, 8 * trained)
    assert found.total == CPU_RESERVE + round(
        CPU_SLACK * (4 * frozen + 20 * trained + max(found.activations + found.logits, found.evaluation))
    )


def test_nf4_takes_what_its_paper_says(base: Path) -> None:
    """Quantised matrices, with their scales; the rest as float32."""
    model, _ = adapted(base, "bfloat16", quantize=True, checkpointing=False)
    training = Training(quantize=True, bfloat16=True, checkpointing=False, rank=RANK, head=True, optimizer="adamw_torch")
    held = 0
    for parameter in model.parameters():
        if not parameter.requires_grad:
            held += parameter.numel() * parameter.element_size()
            state = getattr(parameter, "quant_state", None)
            if state is not None:
                held += state.absmax.numel() + 4 * state.state2.absmax.numel()
    found = footprint(shape(), training, Load(1, 1), Device("cpu", False, 8 << 30, True, 1))
    assert found.weights == pytest.approx(held, rel=0.001)


@pytest.mark.parametrize(
    ("config", "parameters", "adapter"),
    [
        # As their model cards and PEFT's own count of a rank-16 LoRA on all linear layers have it.
        pytest.param(
            {"model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
             "num_hidden_layers": 32, "num_attention_heads": 32, "tie_word_embeddings": False}, 6_738_415_616, 39_976_960,
            id="llama-2-7b",
        ),
        pytest.param(
            {"model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864,
             "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True},
            494_005_120, 8_798_208, id="qwen2.5-0.5b",
        ),
        pytest.param(
            {"model_type": "gpt2", "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024},
            123_500_000, None, id="gpt2",
        ),
    ],
)  # fmt: skip
def test_known_models_have_their_known_sizes(config: dict[str, Any], parameters: int, adapter: int | None) -> None:
    found = shape_of(config)
    assert found is not None
    assert found.linear_parameters + found.other_parameters == pytest.approx(parameters, rel=0.003)
    if adapter is not None:
        assert found.adapter_parameters(16, head=False) == adapter


def test_a_shape_agrees_with_the_network_that_transformers_builds() -> None:
    for config in (CONFIG, AutoConfig.for_model("qwen3", num_hidden_layers=2, vocab_size=300, hidden_size=64, head_dim=24)):
        with torch.device("meta"):
            network = AutoModelForCausalLM.from_config(config)
        found = shape_of(json.loads(config.to_json_string(use_diff=False)))
        assert found is not None
        matrices = [m for name, m in network.named_modules() if isinstance(m, torch.nn.Linear) and name != "lm_head"]
        assert found.linear_parameters == sum(module.weight.numel() for module in matrices)


def test_the_builtin_model_has_the_shape_that_its_settings_give() -> None:
    class Tokens:
        bos_token_id, pad_token_id = 0, 1

    model = BuiltinModel()
    network = new_network(model, Tokens())
    found = builtin_shape(model)
    assert found.linear_parameters + found.other_parameters == sum(value.numel() for value in network.parameters())
    assert found == shape_of(network.config.to_dict())


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"vocab_size": 100, "hidden_size": "wide", "num_hidden_layers": 2, "num_attention_heads": 2},
        {**CONFIG.to_dict(), "num_local_experts": 8},
    ],
)
def test_what_no_estimate_can_be_made_of_is_told_apart(config: dict[str, Any]) -> None:
    assert shape_of(config) is None


def test_each_setting_that_saves_memory_does() -> None:
    training = Training(quantize=True, bfloat16=True, checkpointing=True, rank=64, head=False, optimizer="paged_adamw_8bit")
    load = Load(8192, 8192)
    shape = shape_of({**CONFIG.to_dict(), "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32})
    assert shape is not None
    least = footprint(shape, training, load, GPU).total
    for dearer in ({"quantize": False}, {"checkpointing": False}, {"rank": 128}, {"optimizer": "adamw_torch_fused"}):
        fields = {name: getattr(training, name) for name in Training.__slots__}
        changed = footprint(shape, Training(**{**fields, **dearer}), load, GPU)
        assert changed.total > least, dearer
    assert footprint(shape, training, Load(16384, 8192), GPU).total > least
    assert footprint(shape, training, Load(8192, 1 << 20), GPU).total > least
