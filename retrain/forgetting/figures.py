"""What a study's losses say: the matrix of losses by window and training, and figures with intervals. No torch here.

A bootstrap over threads (Efron 1979; whole threads are drawn, as chunks of one thread move together): every figure of every
arm is computed anew for the same draws, so that differences and ratios between arms are paired. Seeds are averaged within a
draw; how far they lie apart is told beside it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.runs.runfiles import Loss

Floats = npt.NDArray[np.float64]

DRAWS = 2000
DECILE, HALF = 0.1, 0.5


@dataclass(frozen=True, slots=True)
class ValChunk:
    """A chunk that is measured, and whose: ``sender`` is a keyed hash."""

    chunk_id: str
    thread_id: str
    sender: str
    window: int


@dataclass(frozen=True, slots=True)
class Matrix:
    """Losses of one arm. ``nats``: (seeds, trainings, chunks), summed over a chunk's tokens, NaN where not measured; the
    training of place t was on window t. ``tokens``: (chunks)."""

    nats: Floats
    tokens: Floats


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure: ``value`` over all threads, ``seeds`` for each seed alone, ``draws`` over threads drawn again."""

    value: float
    seeds: tuple[float, ...]
    draws: Floats

    def minus(self, other: Drawn) -> Drawn:
        """The paired difference."""
        apart = tuple(mine - theirs for mine, theirs in zip(self.seeds, other.seeds, strict=False))
        return Drawn(self.value - other.value, apart, self.draws - other.draws)

    def over(self, other: Drawn) -> Drawn:
        """The paired ratio, NaN where there is nothing to divide by."""
        apart = tuple(mine / theirs if theirs else math.nan for mine, theirs in zip(self.seeds, other.seeds, strict=False))
        with np.errstate(invalid="ignore", divide="ignore"):
            draws = np.where(other.draws == 0, np.nan, self.draws / other.draws)
        return Drawn(self.value / other.value if other.value else math.nan, apart, draws)

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Percentiles of the draws."""
        low, high = np.nanquantile(self.draws, [(1 - confidence) / 2, (1 + confidence) / 2])
        return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one arm, nats per token. Means over all trainings after window 0 of: ``forgetting``, how far the windows trained
    before stand above the best loss that they ever had; ``new``, the loss on the window just trained; ``rare`` and
    ``rarer``, the loss on the rarest decile and on the rarer half of senders. ``end`` is the loss on all windows after the
    last training, all that a full retrain has."""

    forgetting: Drawn | None
    new: Drawn | None
    rare: Drawn | None
    rarer: Drawn | None
    end: Drawn


@dataclass(frozen=True, slots=True)
class Senders:
    """The rarest decile and the rarer half of the senders that can be rehearsed and measured."""

    rare: frozenset[str]
    rarer: frozenset[str]


def matrix(chunks: Sequence[ValChunk], trainings: int, seeds: Sequence[Mapping[int, Sequence[Loss]]]) -> Matrix:
    """``seeds`` hold, for each seed, the losses after the training on each window."""
    place = {chunk.chunk_id: at for at, chunk in enumerate(chunks)}
    nats = np.full((len(seeds), trainings, len(chunks)), np.nan)
    tokens = np.zeros(len(chunks))
    for seed, measured in enumerate(seeds):
        for window, losses in measured.items():
            for loss in losses:
                nats[seed, window, place[loss.chunk_id]] = loss.nll
                tokens[place[loss.chunk_id]] = loss.n_tokens
    return Matrix(nats, tokens)


def rare_senders(chunks: Sequence[ValChunk], train: pa.Table) -> Senders:
    """Of the senders with both val and train chunks, those with the fewest train tokens; each group has one at least. The
    others cannot be rehearsed, or not measured."""
    tokens: Counter[str] = Counter()
    for sender, count in zip(train["sender"].to_pylist(), train["n_tokens"].to_pylist(), strict=True):
        tokens[sender] += count
    both = sorted({chunk.sender for chunk in chunks} & set(tokens), key=lambda sender: (tokens[sender], sender))
    rare, rarer = (frozenset(both[: max(1, round(share * len(both)))]) for share in (DECILE, HALF))
    return Senders(rare, rarer)


def draw_threads(chunks: Sequence[ValChunk], draws: int = DRAWS) -> Floats:
    """How often each chunk counts, (1 + draws, chunks): all once in the first row, threads drawn with replacement after."""
    threads, of_chunk = np.unique([chunk.thread_id for chunk in chunks], return_inverse=True)
    source = np.random.default_rng(0)
    drawn = source.multinomial(len(threads), np.full(len(threads), 1 / len(threads)), size=draws)
    return np.concatenate([np.ones((1, len(chunks))), drawn[:, of_chunk]]).astype(np.float64)


def window_losses(found: Matrix, windows: npt.NDArray[np.int64], counts: Floats) -> Floats:
    """Nats per token, (draws, seeds, trainings, windows): NaN where a training did not measure a window."""
    seeds, trainings, _ = found.nats.shape
    losses = np.full((len(counts), seeds, trainings, int(windows.max()) + 1), np.nan)
    for window in np.unique(windows):
        mine = windows == window
        below = counts[:, mine] @ found.tokens[mine]
        above = np.einsum("dc,stc->dst", counts[:, mine], found.nats[:, :, mine])
        with np.errstate(invalid="ignore", divide="ignore"):
            losses[..., window] = above / below[:, None, None]
    return losses


def rises(losses: Floats) -> Floats:
    """How far each window stands above the best loss that it had until then; same shape as ``losses``."""
    best = np.fmin.accumulate(losses, axis=2)
    risen: Floats = losses - best
    return risen


def figures(found: Matrix, chunks: Sequence[ValChunk], senders: Senders, counts: Floats) -> Figures:
    """The figures of one arm, over the draws of :func:`draw_threads`."""
    windows = np.array([chunk.window for chunk in chunks])
    losses = window_losses(found, windows, counts)
    last = losses.shape[2] - 1
    chain = not np.isnan(losses[0, :, 1, :]).all()
    end = _drawn(_mean(losses[:, :, last, :], 2))
    if not chain:
        return Figures(None, None, None, None, end)
    risen = rises(losses)
    past = [_mean(risen[:, :, training, :training], 2) for training in range(1, last + 1)]
    new = np.stack([losses[:, :, training, training] for training in range(1, last + 1)])
    return Figures(
        _drawn(np.mean(past, axis=0)),
        _drawn(_mean(new, 0)),
        _of_senders(senders.rare, found, chunks, windows, counts),
        _of_senders(senders.rarer, found, chunks, windows, counts),
        end,
    )


def _of_senders(
    senders: frozenset[str],
    found: Matrix,
    chunks: Sequence[ValChunk],
    windows: npt.NDArray[np.int64],
    counts: Floats,
) -> Drawn:
    """Nats per token of the senders' chunks in the windows trained so far, on average over trainings after window 0."""
    chosen = np.array([chunk.sender in senders for chunk in chunks])
    seeds, trainings, _ = found.nats.shape
    pooled = np.full((len(counts), seeds, trainings), np.nan)
    for training in range(trainings):
        mine = chosen & (windows <= training)
        if mine.any():
            below = counts[:, mine] @ found.tokens[mine]
            above = counts[:, mine] @ found.nats[:, training, mine].T
            with np.errstate(invalid="ignore", divide="ignore"):
                pooled[:, :, training] = above / below[:, None]
    return _drawn(_mean(pooled[:, :, 1:], 2))


def _drawn(values: Floats) -> Drawn:
    """From (1 + draws, seeds)."""
    means = values.mean(axis=1)
    return Drawn(float(means[0]), tuple(values[0].tolist()), means[1:])


def _mean(values: Floats, axis: int) -> Floats:
    """Over what is there; NaN where a draw holds no thread of any of it."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(there, values, 0.0).sum(axis=axis) / there.sum(axis=axis)
    return mean
