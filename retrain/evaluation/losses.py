"""Loss per chunk under an adapter: the figure that everything else (gate, forgetting, selection) is made of.

A loss belongs to (adapter, checkpoint, chunk, evaluation version) and is computed once. On a CPU every chunk is one
forward pass of its own on one core, several of them side by side, so that its loss depends neither on its company nor on
the number of cores. On a GPU chunks of like length share a batch, whose make-up moves a loss by rounding only (about 1e-3
of a nat per token in bfloat16).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from pipeline.capacity.passes import halved
from pipeline.errors import RunError
from pipeline.runs.requests import RunRequest
from pipeline.runs.runfiles import Loss
from pipeline.sampling.objectives import eval_version
from retrain.evaluation.nll import token_nll
from retrain.models.loaded import Loaded
from retrain.processes.shares import shared_passes, shares
from retrain.training.batches import IDLE, Example, collate, groups_of_like_length
from retrain.training.exhaustion import free_memory, is_out_of_memory

EVAL_VERSION = 2
"""Raised whenever the same weights and text would get another loss; stored losses of another version do not count. That of
losses on threads: those on replies are told apart by :func:`version_of`."""


def version_of(request: RunRequest) -> int:
    """The evaluation version of a run's losses: objectives count other tokens of the same chunks."""
    return eval_version(EVAL_VERSION, request.settings.model.objective)


def nats_of(
    loaded: Loaded,
    examples: Sequence[Example],
    batch_tokens: int,
    on_chunk: Callable[[int], None] = lambda done: None,
) -> dict[str, float]:
    """Nats of the predicted tokens of each of ``examples``, by chunk, under the model as it stands; none of those without a
    token to predict.

    ``batch_tokens`` bounds what is in the model at once: a GPU batch, padding included, or the chunks side by side on a
    CPU; ``on_chunk`` hears how many are done. Processes that train together measure a share each, and all get all nats.
    """
    model, compute = loaded.model, loaded.compute
    countable = [example for example in examples if example.n_labels > 0]
    rank, count = compute.ranks.rank, compute.ranks.count
    mine = shares(countable, count)[rank]
    longest = max((len(example.ids) for example in mine), default=1)
    nats: dict[str, float] = {}
    was_training = model.training

    def sums(group: list[Example]) -> list[float]:
        rows = collate(group or IDLE, loaded.pad).on(compute.device)
        # What is gathered of a model that is shared out is computed with again in training.
        with torch.no_grad() if compute.sharded else torch.inference_mode():
            found: list[float] = token_nll(model, rows, compute).double().sum(dim=1).tolist()
        return found[: len(group)]

    def measure(most: int) -> bool:
        """Adds the losses that are not known yet; False when memory ran out on the way."""
        if compute.sharded:
            groups = shared_passes(countable, count, most if compute.on_gpu else 0)[rank]
        else:
            groups = groups_of_like_length([e for e in mine if e.chunk_id not in nats], most if compute.on_gpu else 0)
        try:
            with compute.lanes(most // longest) as side_by_side:
                for group, values in zip(groups, side_by_side(sums, groups), strict=True):
                    nats.update((example.chunk_id, value) for example, value in zip(group, values, strict=True))
                    on_chunk(len(nats))
        except Exception as error:
            if compute.sharded or not is_out_of_memory(error):
                raise  # the others wait in the pass that this process could not make
            return False
        return True

    model.eval()
    try:
        most = max(batch_tokens, longest)
        while not measure(most):
            free_memory()
            less = halved(most, longest)
            if less is None:
                raise RunError(
                    f"memory ran out while a chunk of {longest} tokens was measured", hint="set model.context lower"
                )
            most = less
    finally:
        model.train(was_training)
    return dict(compute.ranks.gathered(nats.items()))


def losses_of(
    nats: Mapping[str, float],
    examples: Sequence[Example],
    splits: Mapping[str, str],
    adapter_id: str,
    checkpoint: str,
    version: int = EVAL_VERSION,
) -> list[Loss]:
    """:func:`nats_of` as losses of an adapter's checkpoint, in the order of ``examples``; ``splits`` gives each chunk's
    split, ``version`` is the evaluation version."""
    return [
        Loss(
            adapter_id=adapter_id,
            checkpoint=checkpoint,
            chunk_id=example.chunk_id,
            split=splits[example.chunk_id],
            nll=nats[example.chunk_id],
            n_tokens=example.n_labels,
            n_bytes=example.n_bytes,
            eval_version=version,
        )
        for example in examples
        if example.chunk_id in nats
    ]
