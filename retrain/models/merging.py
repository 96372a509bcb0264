"""An adapter merged into its base: a whole model that programs without LoRA can load.

It is merged onto the base as it came, or dequantised where it came quantised; never onto the 4-bit weights that training
reads the base through, as rounding those again would change every answer. A base that shares one matrix between its first
and last layer gets two, or an adapter of the last layer would change the first as well. What was written is read again and
must answer as base and adapter did.

    python -m retrain.models.merging --base DIR --adapter DIR --out DIR
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

from pipeline.errors import MailtideError, RunError
from pipeline.home import private_dir
from pipeline.lifeline import die_with_parent
from retrain.offline import TIED, keep_offline

PROBE_TOKENS = 64
TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 6e-2}
"""How far logits may move, as a share of the largest: sums are rounded in another order."""


def merge(base: Path, adapter: Path, out: Path) -> float:
    """Writes the whole model into ``out``, safetensors only; returns how far its logits moved, as a share of the largest.

    Raises ``RunError`` when the adapter does not fit the base, or when what was written answers otherwise.
    """
    import torch
    from peft import PeftModel

    from retrain.models.model import load_tokenizer

    model = _load(base)
    _untie(model)
    try:
        both: Any = PeftModel.from_pretrained(model, str(adapter))
    except (ValueError, RuntimeError, OSError) as error:
        why = str(error).splitlines()[0]
        raise RunError(
            f"the adapter in {adapter} does not fit the base in {base} ({why})", hint="check its base"
        ) from error
    probe = torch.arange(PROBE_TOKENS).remainder(int(both.config.vocab_size)).unsqueeze(0)
    before = _logits(both, probe)
    merged = both.merge_and_unload(safe_merge=True)
    merged.save_pretrained(str(private_dir(out)), safe_serialization=True)
    load_tokenizer(base).save_pretrained(str(out))
    for path in out.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    after = _logits(_load(out), probe)
    moved = float((after - before).abs().max() / before.abs().max().clamp_min(1e-9))
    allowed = TOLERANCE.get(str(merged.dtype).removeprefix("torch."), TOLERANCE["bfloat16"])
    if not moved <= allowed:
        raise RunError(
            f"the merged model's logits are off by {100 * moved:.2g} % of the largest, more than {100 * allowed:g} %",
            hint="serve base and adapter as they are (deploy.server, deploy.vllm)",
        )
    return moved


def main(arguments: list[str] | None = None) -> int:
    """Merges; what fails is one line on standard error and the exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m retrain.models.merging", description="merges an adapter into its base")
    for name in ("base", "adapter", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    asked = parser.parse_args(arguments)
    if not die_with_parent():
        return 1
    keep_offline()
    warnings.filterwarnings("ignore", message=TIED)
    try:
        merge(asked.base, asked.adapter, asked.out)
    except MailtideError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _load(folder: Path) -> Any:
    """The model in its own precision, dequantised where it is kept quantised."""
    from transformers import AutoModelForCausalLM

    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(folder), dtype="auto", local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError) as error:
        raise RunError(f"the model in {folder} cannot be loaded ({error})", hint="check model.base") from error
    if getattr(model.config, "quantization_config", None) is not None:
        model = model.dequantize()
    return model.eval()


def _untie(model: Any) -> None:
    import torch

    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is not None and head.weight is embedding.weight:
        head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    model.config.tie_word_embeddings = False


def _logits(model: Any, probe: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model(input_ids=probe, use_cache=False).logits.float()


if __name__ == "__main__":
    raise SystemExit(main())
