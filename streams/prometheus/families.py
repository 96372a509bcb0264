"""Metric families by one short form each. Labels are mailboxes, statuses and ids of adapters: nobody's address is one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

PREFIX = "mailtide_"
Rows = Iterable[Sequence[object]]
"""Label values, then the figure."""


def counter(name: str, meaning: str, labels: Sequence[str], rows: Rows) -> CounterMetricFamily:
    """What only grows; ``_total`` is added to the name."""
    family = CounterMetricFamily(PREFIX + name, meaning, labels=list(labels))
    for *values, figure in rows:
        family.add_metric([str(value) for value in values], _number(figure))
    return family


def gauge(name: str, meaning: str, labels: Sequence[str], rows: Rows) -> GaugeMetricFamily:
    """What goes up and down. A figure that is None is left out."""
    family = GaugeMetricFamily(PREFIX + name, meaning, labels=list(labels))
    for *values, figure in rows:
        if figure is not None:
            family.add_metric([str(value) for value in values], _number(figure))
    return family


def histogram(name: str, meaning: str, labels: Sequence[str], bounds: Sequence[float], rows: Rows) -> HistogramMetricFamily:
    """How observations are spread: each row ends with one. ``bounds`` are upper ones, in order, infinity apart."""
    seen: dict[tuple[str, ...], list[float]] = {}
    for *values, figure in rows:
        seen.setdefault(tuple(map(str, values)), []).append(_number(figure))
    family = HistogramMetricFamily(PREFIX + name, meaning, labels=list(labels))
    for key, figures in seen.items():
        buckets = [(str(float(bound)), float(sum(figure <= bound for figure in figures))) for bound in bounds]
        family.add_metric(key, [*buckets, ("+Inf", float(len(figures)))], sum(figures))
    return family


def _number(figure: object) -> float:
    if isinstance(figure, datetime):
        return figure.replace(tzinfo=UTC).timestamp()
    assert isinstance(figure, (int, float))
    return float(figure)
