"""How long answers take: first token and whole, at the median and the 95th percentile, and beside the champion's.

Two models are timed in turn on the same prompts, who goes first changing from pair to pair, so that what else the machine
is doing falls on both. Bounds of a percentile are order statistics (the binomial of how many lie below it), which need no
shape of the distribution; those of the ratio of two percentiles resample the pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr

from retrain.evaluation.asking import Trial
from retrain.models.pen import Timed

RESAMPLES = 4_000


@dataclass(frozen=True, slots=True)
class Quantile:
    """A percentile in seconds, with 95 % bounds where the sample is large enough to have them."""

    value: float
    low: float | None
    high: float | None
    n: int


def in_turn(
    put: Sequence[Trial], pairs: int, first: Callable[[Trial], Timed], second: Callable[[Trial], Timed]
) -> list[tuple[Timed, Timed]]:
    """``pairs`` answers of each, on the prompts of ``put`` over and over. One pair before them warms both up."""
    first(put[0]), second(put[0])
    found = []
    for place in range(pairs):
        one = put[place % len(put)]
        if place % 2:
            late, early = second(one), first(one)
            found.append((early, late))
        else:
            found.append((first(one), second(one)))
    return found


def quantile(seconds: Sequence[float], share: float) -> Quantile:
    """The percentile ``share`` (0.5 or 0.95) of at least one measurement."""
    ordered = sorted(seconds)
    n = len(ordered)
    low = max((k for k in range(n) if _below(k, n, share) <= 0.025), default=None)
    high = min((k for k in range(n) if _below(k, n, share) >= 0.975), default=None)
    return Quantile(
        ordered[min(n - 1, math.ceil(share * n) - 1)],
        None if low is None else ordered[low],
        None if high is None else ordered[high],
        n,
    )


def slower(pairs: Sequence[tuple[float, float]], share: float = 0.95) -> Quantile | None:
    """By what share the percentile of the first is above that of the second, with 95 % bounds; None below two pairs."""
    if len(pairs) < 2:
        return None
    seconds = np.asarray(pairs, dtype=np.float64)
    drawn = np.random.default_rng(0).integers(0, len(pairs), (RESAMPLES, len(pairs)))
    ours, theirs = (np.quantile(seconds[drawn, side], share, axis=1, method="inverted_cdf") for side in (0, 1))
    low, high = np.quantile(ours / theirs - 1, [0.025, 0.975])
    value = quantile(seconds[:, 0].tolist(), share).value / quantile(seconds[:, 1].tolist(), share).value - 1
    return Quantile(value, float(low), float(high), len(pairs))


def _below(k: int, n: int, share: float) -> float:
    """The chance that at most ``k`` of ``n`` lie below the percentile."""
    return float(bdtr(k, n, share))
