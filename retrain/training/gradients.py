"""The gradients of one batch: all of its passes by this process, or this process's share of them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator

from retrain.evaluation.nll import token_nll
from retrain.models.loaded import Loaded
from retrain.processes.shares import shared_passes
from retrain.training.batches import IDLE, Batch, Group, collate, groups_of_like_length
from retrain.training.clock import Clock, PassTimes
from retrain.training.lanes import IN_TURN, Lanes


def passes_of(batch: Batch, most: int, loaded: Loaded) -> list[Group | None]:
    """The tensors of the passes that this process makes of a batch, of at most ``most`` tokens each; None is a pass for the
    other processes' sake. They are in the machine's memory, from where a GPU fetches them by itself."""
    ranks = loaded.compute.ranks
    if ranks.count == 1:
        shared = groups_of_like_length(batch.examples, most)
    else:
        shared = shared_passes(batch.examples, ranks.count, most)[ranks.rank]
    groups = [collate(examples, loaded.pad) if examples else None for examples in shared]
    return [group.pinned() if group and loaded.compute.on_gpu else group for group in groups]


class Gradients:
    """Of a process that trains alone; its passes go side by side where that changes nothing."""

    def __init__(self, loaded: Loaded, clock: Clock, lanes: Lanes) -> None:
        self._loaded = loaded
        self._now = clock.now
        self._lanes = lanes
        self._trained = [parameter for parameter in loaded.model.parameters() if parameter.requires_grad]
        self._in_turn = True

    def add(self, model: Any, passes: Sequence[Group | None], counted: int) -> tuple[torch.Tensor, list[PassTimes]]:
        """Adds the gradients of a batch's passes; returns its loss over ``counted`` tokens, and when each pass did what."""
        compute, now = self._loaded.compute, self._now

        def gradients(group: Group) -> tuple[torch.Tensor, tuple[torch.Tensor | None, ...], PassTimes]:
            forward = now()
            loss = token_nll(model, group.on(compute.device), compute).sum() / counted
            backward = now()
            found = torch.autograd.grad(loss, self._trained, allow_unused=True)
            return loss.detach(), found, (forward, backward, now())

        chance = torch.get_rng_state()
        groups = [group for group in passes if group is not None]
        total = torch.zeros((), device=compute.device)
        times = []
        for loss, found, taken in (IN_TURN if self._in_turn else self._lanes)(gradients, groups):
            total += loss
            times.append(taken)
            for parameter, gradient in zip(self._trained, found, strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        # What draws chance (dropout) must draw it in one order: the first batch shows whether the model does.
        self._in_turn = self._in_turn and (not groups or not torch.equal(chance, torch.get_rng_state()))
        return total, times


class SharedGradients:
    """Of one process of several, which exchange their gradients in the last pass."""

    def __init__(self, loaded: Loaded, clock: Clock, accelerator: Accelerator) -> None:
        self._loaded = loaded
        self._now = clock.now
        self._accelerator = accelerator

    def add(self, model: Any, passes: Sequence[Group | None], counted: int) -> tuple[torch.Tensor, list[PassTimes]]:
        """As :meth:`Gradients.add`; the loss is that of all processes."""
        compute, now = self._loaded.compute, self._now
        total = torch.zeros((), device=self._accelerator.device)
        times = []
        for place, group in enumerate(passes):
            alone = self._accelerator.no_sync(model) if place < len(passes) - 1 else contextlib.nullcontext()
            with alone:
                forward = now()
                rows = (group or collate(IDLE, self._loaded.pad)).on(compute.device)
                nats = token_nll(model, rows, compute).sum() * (0 if group is None else 1)
                backward = now()
                # DDP takes the mean over processes; theirs are shares of one sum.
                torch.autograd.backward(nats * (compute.ranks.count / counted))
            times.append((forward, backward, now()))
            total += nats.detach() / counted
        whole: torch.Tensor = self._accelerator.reduce(total, "sum")
        return whole, times
