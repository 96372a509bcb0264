"""Bases, tokenizers and adapters in memory: how they are loaded, on which device, and with which arithmetic."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from pipeline.config.settings import ModelSettings, TrainSettings
from pipeline.errors import RunError
from retrain.processes.ranks import ALONE, Ranks
from retrain.training.exhaustion import is_out_of_memory
from retrain.training.lanes import IN_TURN, Lanes, one_core_each

BUILTIN_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head")
"""``all-linear`` leaves the head out, and a small model learns new words there."""


@dataclass(frozen=True, slots=True)
class Compute:
    """Where and how numbers are computed. ``dtype`` is that of matrix products; weights that are trained are float32.
    ``threads`` are CPU threads: lanes in training and measuring, threads within one pass elsewhere. ``ranks`` are the
    processes that share a step's passes and a measurement's chunks; ``sharded``, when each holds a part of the model."""

    device: torch.device
    dtype: torch.dtype
    threads: int
    ranks: Ranks = ALONE
    sharded: bool = False

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @contextlib.contextmanager
    def precision(self) -> Iterator[None]:
        """Products in ``dtype``, sums and weights as they are."""
        # Autocast's cache of cast weights is one for all threads, and lanes must not share a graph.
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.dtype is torch.bfloat16, cache_enabled=self.on_gpu
        ):
            yield

    @contextlib.contextmanager
    def lanes(self, most: int) -> Iterator[Lanes]:
        """As many passes side by side as there are threads, at most ``most``; on a GPU, or when all processes must make the
        same pass at once, one after another."""
        if self.on_gpu or self.sharded:
            yield IN_TURN
        else:
            with one_core_each(min(self.threads, most)) as side_by_side:
                yield side_by_side

    def take(self) -> None:
        """Makes the device that of the thread that calls, so that it leaves other GPUs alone."""
        if self.on_gpu:
            torch.cuda.set_device(self.device)

    def environment(self) -> dict[str, str]:
        """What the bits of a result depend on, besides the request."""
        names = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "tokenizers")
        return {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "device": torch.cuda.get_device_name(self.device) if self.on_gpu else "cpu",
            "dtype": str(self.dtype).removeprefix("torch."),
            "threads": str(self.threads),
            **{name: importlib.metadata.version(name) for name in names},
        }


def choose_compute(model: ModelSettings, threads: int | None, ranks: Ranks = ALONE) -> Compute:
    """The GPU where there is one, for each of ``ranks`` its own; bfloat16 where the hardware has it (emulated, it is slower
    than float32).

    Asks for deterministic kernels, with a warning where an operation has none.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # A guard against reading what nothing has written. It changes no result of kernels that do not, and writing every
    # tensor twice costs a fifth of the time of measuring.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    device = torch.device("cuda", ranks.local) if torch.cuda.is_available() else torch.device("cpu")
    if model.dtype == "auto":
        native = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bfloat16()
        dtype = torch.bfloat16 if native else torch.float32
    else:
        dtype = torch.bfloat16 if model.dtype == "bfloat16" else torch.float32
    return Compute(device, dtype, torch.get_num_threads(), ranks)


def load_base(path: Path, compute: Compute, *, quantize: bool, attention: str | None = None, spread: bool = False) -> Any:
    """The causal language model in ``path``, frozen, in NF4 with double quantisation if asked; safetensors only.
    ``attention`` are its kernels, by transformers' names; None: torch's own where the model has them. ``spread`` lays its
    layers over all GPUs of the machine, for a base that may be too large for one.

    Where processes are to share it out, it comes into the machine's memory: each layer goes to the GPU when it is shared
    out, so that no GPU ever holds the whole.
    """
    weights = compute.dtype if compute.on_gpu else torch.float32
    options: dict[str, Any] = {"device_map": _placement(compute, spread)} if compute.on_gpu else {}
    if quantize:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=weights,
            bnb_4bit_quant_storage=weights if compute.sharded else torch.uint8,
        )
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            str(path),
            dtype=weights,
            local_files_only=True,
            use_safetensors=True,
            attn_implementation=attention,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise RunError(f"the base model in {path} cannot be loaded ({error})", hint="check model.base") from error
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise RunError(
            f"the base model in {path} has weights of other shapes than its config.json says",
            hint="fetch it again, or set model.base to another model",
        ) from error
    if lacking := sorted(found["missing_keys"]):
        raise RunError(
            f"the base model in {path} lacks weights that its config.json asks for, {lacking[0]} among {len(lacking)}",
            hint="fetch it again, or set model.base to another model",
        )
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            # On CPUs with AVX512-BF16 the first forward in eval mode repacks the weights for good, and every later
            # training step gets wrong gradients without a word.
            module.support_avx512bf16_for_cpu = False
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model.eval()


def _placement(compute: Compute, spread: bool) -> str | dict[str, str | int | None]:
    """Where transformers puts the layers, on a machine with a GPU."""
    if compute.sharded:
        return {"": "cpu"}
    return "auto" if spread and torch.cuda.device_count() > 1 else {"": compute.device.index}


def load_tokenizer(path: Path) -> Any:
    """The tokenizer in ``path``; raises ``RunError`` unless it can say which characters a token stands for."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), local_files_only=True)
    except (OSError, ValueError) as error:
        raise RunError(f"the tokenizer in {path} cannot be loaded ({error})", hint="check model.base") from error
    if not tokenizer.is_fast:
        raise RunError(f"the tokenizer in {path} keeps no offsets", hint="use a base that has a tokenizer.json")
    return tokenizer


def context_of(model_config: Any, settings: ModelSettings) -> int:
    """Tokens that fit: the model's context, or less where ``model.context`` says so."""
    own = int(getattr(model_config, "max_position_embeddings", 0) or 0)
    asked = settings.context
    if asked is None:
        return own or 2048
    return min(asked, own) if own else asked


def fresh_adapter(base: Any, train: TrainSettings, *, builtin: bool, quantize: bool, checkpointing: bool, seed: int) -> Any:
    """``base`` with a new LoRA on all linear layers, seeded; it changes nothing until it is trained.

    ``train.lora`` adds to its configuration, or changes it. Raises ``RunError`` when PEFT does not take that.
    """
    torch.manual_seed(seed)
    fields: dict[str, Any] = {
        "r": train.lora_r,
        "lora_alpha": train.lora_alpha,
        "lora_dropout": train.lora_dropout,
        "target_modules": list(BUILTIN_TARGETS) if builtin else "all-linear",
        "task_type": "CAUSAL_LM",
    }
    taken = {"r", "lora_alpha", "lora_dropout", "task_type"} & set(train.lora)
    if taken:
        raise RunError(
            f"train.lora sets {', '.join(sorted(taken))}, which have settings of their own",
            hint="use train.lora_r, train.lora_alpha and train.lora_dropout",
        )
    try:
        config = LoraConfig(**{**fields, **train.lora})
    except (TypeError, ValueError) as error:
        raise RunError(f"train.lora is not what PEFT's LoraConfig takes ({error})", hint="see PEFT's LoraConfig") from error
    return get_peft_model(_ready(base, quantize=quantize, checkpointing=checkpointing), config)


def continued_adapter(base: Any, folder: Path, train: TrainSettings, *, quantize: bool, checkpointing: bool) -> Any:
    """``base`` with the adapter of ``folder``, to be trained on; its rank and scale must be those of the settings."""
    ready = _ready(base, quantize=quantize, checkpointing=checkpointing)
    try:
        model = PeftModel.from_pretrained(ready, str(folder), is_trainable=True)
    except (RuntimeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise RunError(
            f"the adapter in {folder} does not fit the base, which has another vocabulary or shape "
            f"({str(error).splitlines()[-1].strip()})",
            hint="put the base back as it was, or set model.init_from to fresh",
        ) from error
    config = model.peft_config["default"]
    if (config.r, config.lora_alpha) != (train.lora_r, train.lora_alpha):
        raise RunError(
            f"the parent adapter has rank {config.r} and alpha {config.lora_alpha}, the settings ask for "
            f"{train.lora_r} and {train.lora_alpha}",
            hint="set train.lora_r and train.lora_alpha back, or model.init_from to fresh",
        )
    return model


def _ready(base: Any, *, quantize: bool, checkpointing: bool) -> Any:
    if quantize:
        return prepare_model_for_kbit_training(
            base,
            use_gradient_checkpointing=checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False} if checkpointing else None,
        )
    if checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
        base.enable_input_require_grads()
    return base


def _cpu_has_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
