"""Which checkpoint has the lowest loss, and when training on is pointless: pure functions of losses on val.

Only the selecting half of val's threads is asked (:mod:`pipeline.sampling.halves`), so that the other half can judge a
choice it had no part in. Without such a half nothing is chosen: the last checkpoint is taken.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pipeline.runs.runfiles import Loss


@dataclass(frozen=True, slots=True)
class Scored:
    """A checkpoint's step and its loss on the selecting threads, in nats per token."""

    step: int
    loss: float


def mean_loss(losses: Sequence[Loss], chunks: Collection[str]) -> float | None:
    """Nats per token over ``chunks``: all nats by all tokens, so that a long chunk counts as what it is."""
    chosen = [loss for loss in losses if loss.chunk_id in chunks]
    tokens = sum(loss.n_tokens for loss in chosen)
    return sum(loss.nll for loss in chosen) / tokens if tokens else None


def best_step(history: Sequence[Scored]) -> int | None:
    """The step of the lowest loss, the earliest of equals; None without history."""
    return min(history, key=lambda scored: (scored.loss, scored.step)).step if history else None


def should_stop(history: Sequence[Scored], patience: int, min_delta: float) -> bool:
    """Whether the last ``patience`` checkpoints brought no improvement of more than ``min_delta``; 0 never stops.

    A function of the whole history and not of a counter, so that a resumed run decides as an uninterrupted one.
    """
    best, since = float("inf"), 0
    for scored in sorted(history, key=lambda scored: scored.step):
        if scored.loss < best - min_delta:
            best, since = scored.loss, 0
        else:
            since += 1
    return 0 < patience <= since
