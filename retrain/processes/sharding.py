"""A model whose weights are shared out over the processes that train it (FSDP, by torch's ``fully_shard``).

Each process holds a part of every weight. Before a layer computes, its weights are gathered, and let go of afterwards; the
gradients of the adapter are summed and kept in parts. So every pass is made by all of them at once. An NF4 base is stored
in numbers of the type of its products, as torch shares out no whole numbers; its values are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from retrain.models.adapters import WEIGHTS
from retrain.models.model import Compute


class Shared(torch.nn.Module):
    """Around a model that is shared out already, so that accelerate puts no DDP around it."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, **inputs: Any) -> Any:
        return self.module(**inputs)


def share_out(model: Any, compute: Compute) -> None:
    """Leaves this process its part of ``model``, an adapter on its base, decoder layer by decoder layer. A model in the
    machine's memory goes to the GPU on the way: ``fully_shard`` takes one layer there, whole, and lets go of all but this
    process's part before the next. The scales of NF4, a thirtieth of it, stay whole."""
    mesh = init_device_mesh(compute.device.type, (compute.ranks.count,))
    names = set(model.get_base_model()._no_split_modules or ())
    for module in [module for module in model.modules() if type(module).__name__ in names]:
        fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


def whole(parameter: torch.Tensor) -> torch.Tensor:
    """A parameter in one piece, in every process; all must ask."""
    value = parameter.detach()
    return value.full_tensor() if isinstance(value, DTensor) else value


def put(parameter: torch.Tensor, value: torch.Tensor) -> None:
    """Gives a parameter a value that every process has in one piece."""
    with torch.no_grad():
        parameter.copy_(_as_shared(value, parameter))


def trained_weights(model: Any) -> dict[str, torch.Tensor]:
    """The weights that are trained, in one piece, in the memory of every process; all must ask."""
    return {name: whole(value).cpu().clone() for name, value in model.named_parameters() if value.requires_grad}


def put_weights(model: Any, values: Mapping[str, torch.Tensor]) -> None:
    """Gives ``model`` the weights of :func:`trained_weights`."""
    for name, value in model.named_parameters():
        if value.requires_grad:
            put(value, values[name])


def load_adapter(model: Any, folder: Path, adapter: str = "default") -> None:
    """Gives ``model`` the adapter that a checkpoint holds, where names do without that of the adapter."""
    stored = load_file(folder / WEIGHTS)
    names = [name for name, value in model.named_parameters() if value.requires_grad]
    put_weights(model, {name: stored[name.replace(f".{adapter}", "")] for name in names})


@dataclass(frozen=True, slots=True)
class Gathered:
    """What a checkpoint holds of training, in one piece: the weights that are trained, by name, and the optimizer's state
    as that of a process that trains alone would give it."""

    weights: dict[str, torch.Tensor]
    optimizer: dict[str, Any]


def gathered(model: Any, optimizer: torch.optim.Optimizer) -> Gathered:
    """In the memory of every process; all must ask."""
    state = optimizer.state_dict()
    state["state"] = {
        place: {name: whole(value).cpu() if torch.is_tensor(value) else value for name, value in values.items()}
        for place, values in state["state"].items()
    }
    return Gathered(trained_weights(model), state)


def restore_optimizer(optimizer: torch.optim.Optimizer, path: Path) -> None:
    """Takes up the state that :func:`gathered` gave."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for place, values in state["state"].items():
        for name, value in values.items():
            if torch.is_tensor(value) and value.shape == parameters[place].shape:
                values[name] = _as_shared(value, parameters[place])
    optimizer.load_state_dict(state)


def _as_shared(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """``value`` shared out as ``parameter`` is."""
    value = value.to(parameter.device, parameter.dtype)
    if not isinstance(parameter, DTensor):
        return value
    return distribute_tensor(value, parameter.device_mesh, parameter.placements)
