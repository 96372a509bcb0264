"""What evidence could have shown, and how much of it would show more: from an interval's error alone.

A bound lies ``t * error`` from the mean, so a true difference of ``(t(confidence) + t(power)) * error`` is seen in a share
``power`` of all repetitions (Miller 2024, arXiv 2411.00640, section 5, with Student's t for the normal distribution, as
threads are few). The error falls with the root of the number of threads, and the degrees of freedom rise with that number.
"""

from __future__ import annotations

import math

from pipeline.intervals import Interval, detectable, t_quantile

LIKELY = 0.8
"""The share of repetitions that is meant by a difference that evidence would have seen: four of five."""

MOST_THREADS = 100_000
"""Beyond this many threads a mailbox will not settle the question."""


def smallest_seen(found: Interval | None, confidence: float) -> float | None:
    """The smallest true difference that this evidence would have shown in four of five repetitions, in nats per token;
    None where any difference could hide."""
    reach = detectable(found, confidence=confidence, power=LIKELY) if found is not None else math.inf
    return reach if math.isfinite(reach) else None


def chance_within(found: Interval | None, margin: float, confidence: float, *, true: float = 0.0) -> float | None:
    """How likely a challenger with that ``true`` difference has its upper bound at or below the margin, on evidence like
    this; None below two threads. The estimate is taken to vary as Student's t about the truth, with the error measured."""
    if found is None or found.n_clusters < 2:
        return None
    if found.error == 0:
        return float(true <= margin)
    from scipy.special import stdtr

    return float(stdtr(found.df, (margin - true) / found.error - t_quantile(confidence, found.df)))


def threads_for(found: Interval, room: float, *, confidence: float, chance: float = 0.5) -> int | None:
    """The least number of threads, of the kind measured, that brings a bound within ``room`` of the mean.

    With ``chance`` 0.5 it does so if the mean stays what it is; a greater chance leaves the estimate room to vary. None
    where no number below ``MOST_THREADS`` would do, or the error is unknown.
    """
    if room <= 0 or found.n_clusters < 2:
        return None

    def reaches(threads: int) -> bool:
        times = threads / found.n_clusters
        df = max(1.0, (found.df + 1) * times - 1)
        return (t_quantile(confidence, df) + t_quantile(chance, df)) * found.error / math.sqrt(times) <= room

    low, high = 1, MOST_THREADS
    if not reaches(high):
        return None
    while low < high:
        middle = (low + high) // 2
        if reaches(middle):
            high = middle
        else:
            low = middle + 1
    return max(2, low)
