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
from retrain.training.batches import IDLE, Batch, Example, collate, groups_of_like_length
from retrain.training.clock import Clock, PassTimes
from retrain.training.lanes import IN_TURN, Lanes


class Gradients:
    """Of a process that trains alone; its passes go side by side where that changes nothing."""

    def __init__(self, loaded: Loaded, clock: Clock, lanes: Lanes) -> None:
        self._loaded = loaded
        self._now = clock.now
        self._lanes = lanes
        self._trained = [parameter for parameter in loaded.model.parameters() if parameter.requires_grad]
        self._in_turn = True

    def add(self, model: Any, batch: Batch, most: int, counted: int) -> tuple[torch.Tensor, list[PassTimes]]:
        """Adds the gradients of a batch in passes of at most ``most`` tokens; returns its loss over ``counted`` tokens, and
        when each pass did what."""
        pad, compute, now = self._loaded.pad, self._loaded.compute, self._now

        def gradients(examples: Sequence[Example]) -> tuple[torch.Tensor, tuple[torch.Tensor | None, ...], PassTimes]:
            begins = now()
            group = collate(examples, pad, compute.device)
            forward = now()
            loss = token_nll(model, group, compute).sum() / counted
            backward = now()
            found = torch.autograd.grad(loss, self._trained, allow_unused=True)
            return loss.detach(), found, (begins, forward, backward, now())

        chance = torch.get_rng_state()
        groups = groups_of_like_length(batch.examples, most)
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

    def add(self, model: Any, batch: Batch, most: int, counted: int) -> tuple[torch.Tensor, list[PassTimes]]:
        """As :meth:`Gradients.add`; the loss is that of all processes."""
        compute, now = self._loaded.compute, self._now
        ranks = compute.ranks
        passes = shared_passes(batch.examples, ranks.count, most)[ranks.rank]
        total = torch.zeros((), device=self._accelerator.device)
        times = []
        for place, examples in enumerate(passes):
            begins = now()
            group = collate(examples or IDLE, self._loaded.pad, compute.device)
            alone = self._accelerator.no_sync(model) if place < len(passes) - 1 else contextlib.nullcontext()
            with alone:
                forward = now()
                nats = token_nll(model, group, compute).sum() * (1 if examples else 0)
                backward = now()
                # DDP takes the mean over processes; theirs are shares of one sum.
                torch.autograd.backward(nats * (ranks.count / counted))
            times.append((begins, forward, backward, now()))
            total += nats.detach() / counted
        whole: torch.Tensor = self._accelerator.reduce(total, "sum")
        return whole, times
