"""Whether a loaded base, its tokenizer and an adapter belong together, and the base looks back only: asked of what they do
and hold, as names and sizes can be right by chance."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from safetensors import safe_open

from pipeline.capacity.content import content_of, told_change
from pipeline.errors import RunError
from pipeline.home import Home
from pipeline.runs.requests import AdapterRef, BaseRef, RunRequest, read_result
from retrain.models.adapters import CONFIG, WEIGHTS
from retrain.models.model import Compute

VOCABULARY, BASE = "vocabulary", "base"
"""Of a run's environment: a digest of the tokens that its model reads, and what names the content of an external base."""

SLACK_ON_GPU, SLACK = 1e-2, 1e-4
"""By which share of the largest one logits of the same tokens may differ by rounding, where a batch is computed in other
pieces: in bfloat16; and in float32, in which a look ahead shows even where weights are as small as a new model's."""

LOOKED_AT = 64
"""Tokens. Over a few, torch's attention on a CPU passes NaN over in silence; over many it does not."""


def require_causal(model: Any, compute: Compute) -> None:
    """Raises ``RunError`` when what the model says of a token is no number, or depends on the tokens after it."""
    half = min(LOOKED_AT, getattr(model.config, "max_position_embeddings", None) or LOOKED_AT) // 2
    begun = 1 + torch.arange(half, device=compute.device) % 8
    rows = torch.stack([torch.cat([begun, begun + 8]), torch.cat([begun, begun + 16])])
    precision = compute.precision() if compute.on_gpu else contextlib.nullcontext()
    with torch.no_grad(), precision:  # weights gathered in inference mode could not be trained with afterwards
        logits = model(input_ids=rows, use_cache=False).logits[:, :half].float()
    if not bool(torch.isfinite(logits).all()):
        raise RunError(
            "the base model says NaN or infinity where it should say how likely a token is: its weights are damaged",
            hint="fetch it again, or set model.base to another model",
        )
    slack = SLACK_ON_GPU if compute.on_gpu else SLACK
    if float((logits[0] - logits[1]).abs().max()) > slack * float(logits.abs().max()):
        raise RunError(
            "the base model looks at the text after a token too: it is no causal language model",
            hint="set model.base to a model that writes text from left to right",
        )


def vocabulary_of(tokenizer: Any) -> str:
    """12 hex digits over all tokens and their numbers."""
    listed = "\n".join(f"{number} {token}" for token, number in sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(listed.encode()).hexdigest()[:12]


def require_vocabulary(home: Home, request: RunRequest, tokenizer: Any) -> None:
    """Raises ``RunError`` when the adapters that the run continues or is compared with read other tokens than these. Runs
    from before this was recorded are taken at their base's word."""
    now = vocabulary_of(tokenizer)
    for ref in _refs(request):
        then = _recorded(home, ref, VOCABULARY)
        if then is not None and then != now:
            raise RunError(
                f"adapter {ref.adapter_id} was trained with another vocabulary ({then}) than {request.base.path} has "
                f"({now})",
                hint="put the base's tokenizer back as it was, or set model.base to a copy in another folder",
            )


def require_recorded_base(home: Home, request: RunRequest, folder: Path) -> None:
    """Raises ``RunError`` when the adapters that the run continues or is compared with were trained on a base with other
    content than that in ``folder``. It matters where the owner of the mail does not have the base, and names it by its Hub
    id alone."""
    if request.base.kind != "external":
        return
    now = content_of(home, folder)
    for ref in _refs(request):
        then = _recorded(home, ref, BASE)
        if then is not None and then != now.base_id:
            raise RunError(
                f"the base model in {folder}, which {ref.adapter_id} was trained on, {told_change(home, then, now)}",
                hint="put its files back as they were; to begin a new lineage on it, set model.init_from to fresh",
            )


def require_adapter(model: Any, folder: Path, request: RunRequest) -> None:
    """Raises ``RunError`` unless the adapter that was loaded from ``folder`` was made for the request's base, and held just
    the weights that its configuration makes room for: PEFT leaves what is missing at its random beginning."""
    require_made_for(folder, request.base)
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        differing = sorted(set(get_peft_model_state_dict(model, save_embedding_layers=False)) ^ set(file.keys()))
    if differing:
        raise RunError(
            f"the adapter in {folder} has other weights than its configuration says, {differing[0]} among {len(differing)}",
            hint=_ANOTHER,
        )


def require_made_for(folder: Path, base: BaseRef) -> None:
    """Raises ``RunError`` when the adapter in ``folder`` was trained on another base: of the same shape, it would be loaded
    all the same, and say something else."""
    made_for = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path")
    if made_for != base.base_id:
        raise RunError(f"the adapter in {folder} was made for base {made_for}, not for {base.base_id}", hint=_ANOTHER)


_ANOTHER = "restore its folder from a backup, or roll back to another adapter"


def _refs(request: RunRequest) -> list[AdapterRef]:
    return list({ref.adapter_id: ref for ref in (request.parent, request.champion, request.best) if ref}.values())


def _recorded(home: Home, ref: AdapterRef, name: str) -> str | None:
    return read_result(home.run(ref.run_id)).environment.get(name)
