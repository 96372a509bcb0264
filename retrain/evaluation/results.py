"""Entries of ``eval_results.json`` that follow from losses per chunk and from searches. Pure: what was measured in, figures
out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.domain import Split
from pipeline.intervals import Interval, ratio_interval
from pipeline.runs.runfiles import Loss
from retrain.evaluation.heldout import HeldOut
from retrain.search.rankings import FIGURES
from retrain.search.retrieval import Retrieval

CELL_CHUNKS = 20

Measured = dict[str, Any]


def entries(losses: Sequence[Loss], sample: Mapping[str, HeldOut]) -> list[Measured]:
    """One entry per adapter, checkpoint and split in ``losses``, in order of first appearance; only of chunks in the
    sample."""
    grouped: dict[tuple[str, str, str], list[Loss]] = {}
    for loss in losses:
        if loss.chunk_id in sample:
            grouped.setdefault((loss.adapter_id, loss.checkpoint, loss.split), []).append(loss)
    found = []
    for (adapter_id, checkpoint, split), own in grouped.items():
        metrics = _figures(own, sample)
        for first, last in cells([sample[loss.chunk_id].window_idx for loss in own]):
            some = [loss for loss in own if first <= sample[loss.chunk_id].window_idx <= last]
            metrics.extend({**metric, "window_from": first, "window_to": last} for metric in _figures(some, sample))
        found.append(
            {
                "adapter_id": adapter_id,
                "checkpoint": checkpoint,
                "split": split,
                "n_chunks": len(own),
                "n_threads": len({sample[loss.chunk_id].thread_id for loss in own}),
                "n_tokens": sum(loss.n_tokens for loss in own),
                "metrics": metrics,
            }
        )
    return found


def retrieval_entry(retrieval: Retrieval, split: Split) -> Measured:
    """How BM25 alone finds what a reply answers; the same for every adapter."""
    metrics = [metric_of(figure, retrieval.ranked.interval(figure)) for figure in FIGURES]
    return {
        "adapter_id": "bm25",
        "checkpoint": "",
        "split": split.value,
        "n_queries": retrieval.ranked.queries,
        "n_candidates": retrieval.candidates,
        "metrics": [metric for metric in metrics if metric is not None],
    }


def cells(windows: Sequence[int]) -> list[tuple[int, int]]:
    """Consecutive windows pooled, from the oldest on, into ranges of at least :data:`CELL_CHUNKS` chunks.

    ``windows`` gives the window of each chunk. What is left at the end joins the last range; the whole is one range when
    it is smaller than that.
    """
    ranges: list[tuple[int, int]] = []
    first, count = None, 0
    for window in sorted(set(windows)):
        first = window if first is None else first
        count += sum(other == window for other in windows)
        if count >= CELL_CHUNKS:
            ranges.append((first, window))
            first, count = None, 0
    if first is not None:
        last = max(windows)
        ranges = [*ranges[:-1], (ranges[-1][0], last)] if ranges else [(first, last)]
    return ranges


def _figures(losses: Sequence[Loss], sample: Mapping[str, HeldOut]) -> list[dict[str, Any]]:
    threads = [sample[loss.chunk_id].thread_id for loss in losses]
    nats = [loss.nll for loss in losses]
    per_token = ratio_interval(nats, [loss.n_tokens for loss in losses], threads)
    per_byte = ratio_interval([nat / math.log(2) for nat in nats], [loss.n_bytes for loss in losses], threads)
    metrics = [
        metric_of("nats_per_token", per_token),
        metric_of("perplexity", per_token, math.exp),
        metric_of("bits_per_byte", per_byte),
    ]
    return [metric for metric in metrics if metric is not None]


def metric_of(
    name: str, interval: Interval | None, scale: Callable[[float], float] = lambda value: value
) -> dict[str, Any] | None:
    """A figure as the document has it; None where there is none."""
    if interval is None:
        return None
    low, high = interval.bounds
    return {
        "metric": name,
        "value": scale(interval.value),
        "n": interval.n,
        "ci_low": None if low is None else scale(low),
        "ci_high": None if high is None else _bounded(scale, high),
        "few": interval.few,
    }


def _bounded(scale: Callable[[float], float], value: float) -> float | None:
    try:
        return scale(value)
    except OverflowError:  # the exponential of a bound that two threads make as wide as this
        return None
