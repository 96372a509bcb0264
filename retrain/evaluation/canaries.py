"""How well a model remembers the canaries that its lineage trained on, and what the gate may say to it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc
import torch

from pipeline.chunking.shards import read_meta, read_texts
from pipeline.home import Home
from pipeline.privacy.canaries import CANARY, cut, exposure, others, said
from pipeline.runs.harms import Figure
from pipeline.runs.requests import RunRequest
from retrain.evaluation.nll import token_nll
from retrain.models.loaded import Loaded
from retrain.training.batches import Example, Source, collate, encode

AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Exposed:
    """A canary's rank by loss among all numbers of the space (1: the likeliest), and its exposure in bits."""

    chunk_id: str
    window_idx: int
    rank: int
    exposure: float


def planted(home: Home, request: RunRequest) -> Iterator[tuple[str, int, str]]:
    """Chunk id, window and text of the canaries in the request's shards. Raises ``ShardError``."""
    for shard in request.shards:
        folder = home.root / shard.path
        meta = read_meta(folder, shard.sha256, columns=("chunk_id", "thread_id"))
        ids = meta.filter(pc.equal(meta["thread_id"], CANARY))["chunk_id"].to_pylist()
        texts = read_texts(folder, shard.sha256, ids, excluded=ids) if ids else {}
        yield from ((chunk_id, shard.window_idx, texts[chunk_id]) for chunk_id in ids if chunk_id in texts)


def exposures(loaded: Loaded, tokenizer: Any, context: int, found: Sequence[tuple[str, int, str]]) -> list[Exposed]:
    """The exposure of each canary (chunk id, window, text) under a model as it stands.

    All of them end the same words, so the space is measured once.
    """
    if not found:
        return []
    before, _, after = cut(found[-1][2])
    space = others()
    numbers = [*space, *(cut(text)[1] for _, _, text in found)]
    sources = [Source(str(place), f"{before}{said(number)}{after}", len(before)) for place, number in enumerate(numbers)]
    losses = _nats(loaded, encode(tokenizer, sources, context))
    told = []
    for (chunk_id, window_idx, _), loss in zip(found, losses[len(space) :], strict=True):
        rank = 1 + sum(other < loss for other in losses[: len(space)])
        told.append(Exposed(chunk_id, window_idx, rank, exposure(rank)))
    return told


def canary_evidence(found: Sequence[Exposed]) -> Figure:
    """The mean exposure, a harm for the gate, with a lower bound at 95 %.

    Exposure of what was never seen is exponential with a mean of 1/ln 2 bits, as ranks are then even; so is taken what is
    seen, whose bound follows from the gamma distribution of a sum.
    """
    if not found:
        return Figure("canary", None, reason="no canary was trained on")
    n, total = len(found), sum(one.exposure for one in found)
    low, high = total / _gamma_quantile(0.95, n), total / _gamma_quantile(0.05, n)
    return Figure("canary", total / n, low, high, n)


def _nats(loaded: Loaded, examples: Sequence[Example]) -> list[float]:
    """Nats of the numbers, in order; batches hold one length each, so no padding tells them apart."""
    by_length: dict[int, list[int]] = {}
    for place, example in enumerate(examples):
        by_length.setdefault(len(example.ids), []).append(place)
    nats = [0.0] * len(examples)
    model, compute = loaded.model, loaded.compute
    was_training = model.training
    model.eval()
    try:
        for places in by_length.values():
            for start in range(0, len(places), AT_ONCE):
                some = places[start : start + AT_ONCE]
                group = collate([examples[place] for place in some], loaded.pad).on(compute.device)
                with torch.inference_mode():
                    sums = token_nll(model, group, compute).double().sum(dim=1).tolist()
                for place, value in zip(some, sums, strict=True):
                    nats[place] = value
    finally:
        model.train(was_training)
    return nats


def _gamma_quantile(p: float, shape: int) -> float:
    """Of the sum of ``shape`` exponential variables of mean 1, by halving: its distribution is a Poisson tail."""
    low, high = 0.0, 10.0 * shape + 50.0
    for _ in range(100):
        middle = (low + high) / 2
        below = 1 - math.exp(-middle) * sum(middle**k / math.factorial(k) for k in range(shape))
        low, high = (middle, high) if below < p else (low, middle)
    return low
