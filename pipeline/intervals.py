"""How sure a measured figure is: confidence intervals that know mail comes in threads.

Chunks of one thread share authors and subject, so their losses move together; treating them as independent makes an
interval too narrow. Here the thread is the unit: each is left out once, and the spread of what remains is the error.

Sources: the delete-one-group jackknife (Tukey 1958; Efron and Stein 1981), its use with Student's t as the cluster
estimator "CV3" (MacKinnon, Nielsen and Webb 2023), and clustered errors and paired differences for evaluating language
models (Miller 2024, arXiv 2411.00640). Threads differ much in length, so the degrees of freedom are Kish's effective
number of clusters less one: ``sum(w)**2 / sum(w**2) - 1``, the plain count less one when all are equal. In simulation
with heavy-tailed thread lengths that covers 94 % to 97 % where the plain count covers 91 % to 94 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

FEW_CLUSTERS = 20
"""Below this many threads an interval is marked as resting on few."""

Sided = Literal["two", "upper", "lower"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its confidence bounds; a bound that is not known, or not asked for, is infinite.

    ``error`` is the standard error (infinite below two clusters) and ``df`` its degrees of freedom, ``n`` the number of
    observations, ``n_clusters`` that of the threads they come from, and ``few`` says that these are too few to lean on.
    """

    value: float
    low: float
    high: float
    error: float
    df: float
    n: int
    n_clusters: int
    few: bool

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """The bounds as a table or JSON can hold them: None where infinite."""
        return (self.low if math.isfinite(self.low) else None, self.high if math.isfinite(self.high) else None)


def ratio_interval(
    numerators: Sequence[float],
    denominators: Sequence[float],
    clusters: Sequence[str],
    *,
    confidence: float = 0.95,
    sided: Sided = "two",
    few_below: int = FEW_CLUSTERS,
) -> Interval | None:
    """Interval of ``sum(numerators) / sum(denominators)``, one cluster left out at a time.

    The three sequences run in parallel over observations: nats, tokens and thread of each chunk give nats per token;
    values, ones and thread give a mean. Denominators are not negative; observations with none carry no weight and are
    left out. None when nothing is left; infinite bounds when all that is left is one cluster.
    """
    import numpy as np

    if not len(numerators) == len(denominators) == len(clusters):
        raise ValueError("numerators, denominators and clusters must be of one length")
    weights = np.asarray(denominators, dtype=np.float64)
    if (weights < 0).any():
        raise ValueError("denominators must not be negative")
    used = weights > 0
    n = int(used.sum())
    if n == 0:
        return None
    weights = weights[used]
    amounts = np.asarray(numerators, dtype=np.float64)[used]
    names, of_cluster = np.unique(np.asarray(clusters, dtype=object)[used].astype(str), return_inverse=True)
    count = len(names)
    top, bottom = amounts.sum(), weights.sum()
    value = float(top / bottom)
    if count < 2:
        return Interval(value, -math.inf, math.inf, math.inf, 0.0, n, count, count < few_below)
    per_cluster = np.bincount(of_cluster, weights, count)
    spread = (top - np.bincount(of_cluster, amounts, count)) / (bottom - per_cluster) - value
    error = math.sqrt((count - 1) / count * float((spread**2).sum()))
    df = max(1.0, float(bottom**2 / (per_cluster**2).sum()) - 1)
    reach = t_quantile(0.5 + confidence / 2 if sided == "two" else confidence, df) * error
    low = -math.inf if sided == "upper" else value - reach
    high = math.inf if sided == "lower" else value + reach
    return Interval(value, low, high, error, df, n, count, count < few_below)


def proportion_interval(hits: Sequence[bool], clusters: Sequence[str], *, confidence: float = 0.95) -> Interval | None:
    """Interval of a share of hits, such as recall at k, that stays inside 0 to 1 and is never empty.

    Wilson's score interval at the effective sample size, which is the size of an independent sample with the same
    clustered error (Kish's design effect; Korn and Graubard 1998 do the same with exact bounds). When every observation
    agrees the error is no guide, and the number of clusters stands in for the sample size.
    """
    plain = ratio_interval([float(hit) for hit in hits], [1.0] * len(hits), clusters, confidence=confidence)
    if plain is None:
        return None
    share, count = plain.value, plain.n_clusters
    if count < 2:
        return Interval(share, 0.0, 1.0, math.inf, 0.0, plain.n, count, plain.few)
    variance = share * (1 - share)
    size = min(variance / plain.error**2, plain.n) if variance > 0 and plain.error > 0 else count
    z2 = t_quantile(0.5 + confidence / 2, plain.df) ** 2
    middle = (share + z2 / (2 * size)) / (1 + z2 / size)
    reach = math.sqrt(z2 * (variance / size + z2 / (4 * size**2))) / (1 + z2 / size)
    low = 0.0 if share == 0 else max(0.0, middle - reach)
    high = 1.0 if share == 1 else min(1.0, middle + reach)
    return Interval(share, low, high, plain.error, plain.df, plain.n, count, plain.few)


def finite(value: float | None) -> float | None:
    """A bound or figure that says something: None where it is unknown or has no end."""
    return value if value is not None and math.isfinite(value) else None


def detectable(interval: Interval, *, confidence: float = 0.95, power: float = 0.8) -> float:
    """The smallest true difference that a one-sided test at ``confidence`` would see in ``power`` of all repetitions.

    In the units of the interval; infinite below two clusters (Miller 2024, section 5).
    """
    if interval.n_clusters < 2:
        return math.inf
    return (t_quantile(confidence, interval.df) + t_quantile(power, interval.df)) * interval.error


def t_quantile(p: float, df: float) -> float:
    """Student's t quantile; ``df`` is positive and need not be whole."""
    from scipy.special import stdtrit

    return float(stdtrit(df, p))
