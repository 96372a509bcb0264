"""Whether a run's figures are worse than those of the runs before it, beyond what they differ by anyway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

EARLIER = 5
"""How many runs a figure is held against; with fewer there is nothing to say."""

LOWER_IS_BETTER = frozenset(
    {
        *("nats_per_token", "bits_per_byte", "reply_loss", "reply_loss_retrieved", "reply_loss_parent", "repetition"),
        *("first_token_p50", "first_token_p95", "answer_p50", "answer_p95"),
    }
)
HIGHER_IS_BETTER = frozenset(
    {
        *("recall", "mrr", "ndcg", "rag_gain", "rag_gain_parent", "rag_gain_over_random"),
        *("rag_accuracy", "rag_bleu", "rag_f1", "rag_exact"),
    }
)
"""Metrics without their ``@k``. Perplexity is nats per token again, random mail is a control, and a figure that is in
neither set has no direction that we know."""

Name = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a run's adapter over all windows, with its 95 % bounds where they are known."""

    metric: str
    split: str
    value: float
    low: float | None
    high: float | None

    @property
    def name(self) -> Name:
        return self.metric, self.split


@dataclass(frozen=True, slots=True)
class Regression:
    """A figure, what it was in the median of the runs before, and what the worst of them had."""

    figure: Figure
    usual: float
    worst: float


def regressions(own: Sequence[Figure], earlier: Sequence[Mapping[Name, float]]) -> list[Regression]:
    """The figures that are worse than in every one of the last five runs, and clearly so: the better of the figure's bounds
    is still worse than their median; without bounds, it is further from the worst of them than they are from each other,
    and they do differ: of a figure that never moved nobody knows how far it may.

    ``earlier`` are the runs before, the newest last. Of six equal runs the last is the worst in one of six cases, which
    alone would cry wolf every few weeks.
    """
    last = earlier[-EARLIER:]
    found = []
    for figure in own:
        values = [run[figure.name] for run in last if figure.name in run]
        sign = _direction(figure.metric)
        if sign == 0 or len(values) < EARLIER:
            continue
        harms = [sign * value for value in values]
        harm, best_bound = sign * figure.value, figure.low if sign > 0 else figure.high
        usual, worst, spread = median(harms), max(harms), max(harms) - min(harms)
        clear = harm - worst > spread > 0 if best_bound is None else sign * best_bound > usual
        if harm > worst and clear:
            found.append(Regression(figure, sign * usual, sign * worst))
    return found


def _direction(metric: str) -> int:
    """1 where more is worse, -1 where less is, 0 where nobody knows."""
    name = metric.partition("@")[0]
    return 1 if name in LOWER_IS_BETTER else -1 if name in HIGHER_IS_BETTER else 0
