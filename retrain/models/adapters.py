"""Adapter folders: safetensors and a configuration, the same bytes for the same weights wherever the home lies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from safetensors.torch import save_file

from pipeline.home import private_dir

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def save_adapter(
    model: Any, folder: Path, *, base_id: str, adapter: str = "default", weights: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Writes the weights of ``adapter`` and its configuration, which names the base by id instead of by path. ``weights``
    are those of the model that are trained, where it holds but a part of them itself.

    PEFT's own writer would also store the head of the base beside an adapter that covers it, the path of the base, sets
    in an order that changes from process to process, and a model card.
    """
    private_dir(folder)
    given = None if weights is None else dict(weights)
    state = get_peft_model_state_dict(model, state_dict=given, adapter_name=adapter, save_embedding_layers=False)
    save_file(
        {name: state[name].detach().cpu().contiguous() for name in sorted(state)},
        folder / WEIGHTS,
        metadata={"format": "pt"},
    )
    config = model.peft_config[adapter].to_dict()
    config.update(base_model_name_or_path=base_id, revision=None, inference_mode=True)
    ordered = {name: sorted(value) if isinstance(value, set | list | tuple) else value for name, value in config.items()}
    (folder / CONFIG).write_text(json.dumps(ordered, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for name in (WEIGHTS, CONFIG):
        (folder / name).chmod(0o600)
