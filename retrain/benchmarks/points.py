"""Scores of tasks, and how many points one model loses against another. Pure: items in, figures out.

A difference is paired, item by item. Tasks are measured in points (:data:`retrain.benchmarks.tasks.POINTS`) and their
losses averaged by the tasks' weights. Items are independent across tasks, so the variances add up, and the degrees of
freedom are Welch's and Satterthwaite's (Welch 1947).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.intervals import Interval, proportion_interval, ratio_interval, t_quantile
from retrain.benchmarks.items import Item
from retrain.benchmarks.tasks import POINTS

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class TaskLoss:
    """A task under two models: their scores on the same ``n`` items, and the points lost from ``theirs`` to ``ours``, with
    the standard error (infinite where unknown) and its degrees of freedom."""

    task: str
    metric: str
    weight: float
    n: int
    ours: float
    theirs: float
    points: float
    error: float
    df: float

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """95 % bounds of ``points``; None where the error is unknown."""
        return _bounds(self.points, self.error, self.df)


@dataclass(frozen=True, slots=True)
class Loss:
    """The weighted mean over tasks, in points; a gain is negative. ``n`` counts items."""

    points: float
    low: float | None
    high: float | None
    n: int
    tasks: tuple[TaskLoss, ...]


def by_task(items: Iterable[Item]) -> dict[str, list[Item]]:
    """Items by the task that they are of, in order of first appearance."""
    found: dict[str, list[Item]] = {}
    for item in items:
        found.setdefault(item.task, []).append(item)
    return found


def score(items: Sequence[Item]) -> Interval | None:
    """One model's score of one task, with 95 % bounds that respect that a share lies between 0 and 1."""
    clusters = [item.cluster for item in items]
    if all(item.size == 1 and item.value in (0, 1) for item in items):
        return proportion_interval([bool(item.value) for item in items], clusters)
    return ratio_interval([item.value for item in items], [item.size for item in items], clusters)


def loss(ours: Iterable[Item], theirs: Iterable[Item], weights: Mapping[str, float]) -> Loss | None:
    """The points that ``ours`` lose against ``theirs`` on the items that both have answered; None where there are none.

    ``weights`` gives the weight of each task; one that it does not name counts once.
    """
    known = {(item.task, item.task_sha256, item.harness, item.item): item for item in theirs}
    pairs: dict[str, list[tuple[Item, Item]]] = {}
    for item in ours:
        other = known.get((item.task, item.task_sha256, item.harness, item.item))
        if other is not None:
            pairs.setdefault(item.task, []).append((item, other))
    tasks = tuple(found for task, some in pairs.items() if (found := _task_loss(some, weights.get(task, 1.0))) is not None)
    if not tasks:
        return None
    total = sum(task.weight for task in tasks)
    points = sum(task.weight * task.points for task in tasks) / total
    variances = [(task.weight / total * task.error) ** 2 for task in tasks]
    low, high = _bounds(points, math.sqrt(sum(variances)), _freedom(variances, [task.df for task in tasks]))
    return Loss(points, low, high, sum(task.n for task in tasks), tasks)


def _task_loss(pairs: Sequence[tuple[Item, Item]], weight: float) -> TaskLoss | None:
    first = pairs[0][0]
    sizes = [our.size for our, _ in pairs]
    clusters = [our.cluster for our, _ in pairs]
    lost = [POINTS[first.metric] * (their.value - our.value) for our, their in pairs]
    found = ratio_interval(lost, sizes, clusters)
    if found is None:
        return None
    error = found.error
    if not any(lost) and all(size == 1 for size in sizes):
        # Both answered every question alike. That the next would be answered alike is likely and not certain: the error
        # is that of one question in as many.
        error = abs(POINTS[first.metric]) / found.n_clusters
    whole = sum(sizes)
    return TaskLoss(
        task=first.task,
        metric=first.metric,
        weight=weight,
        n=found.n,
        ours=sum(our.value for our, _ in pairs) / whole,
        theirs=sum(their.value for _, their in pairs) / whole,
        points=found.value,
        error=error,
        df=found.df,
    )


def _freedom(variances: Sequence[float], freedoms: Sequence[float]) -> float:
    parts = [variance**2 / df for variance, df in zip(variances, freedoms, strict=True) if variance and df]
    return sum(variances) ** 2 / sum(parts) if parts else max(freedoms)


def _bounds(points: float, error: float, df: float) -> tuple[float | None, float | None]:
    if not math.isfinite(error) or df <= 0:
        return None, None
    reach = t_quantile(0.5 + CONFIDENCE / 2, df) * error
    return points - reach, points + reach
