"""Figures for the gate that no run can measure of itself: they are asked for as the verdict falls, and kept in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pipeline.config.settings import Settings
from pipeline.runs.harms import Figure
from pipeline.runs.requests import RunRequest, RunResult
from pipeline.store import Store
from registry.feedback import feedback_figures
from registry.records import price
from registry.spotcheck import spot_check_figures

Late = Callable[[Store, RunRequest, RunResult, Settings], Iterable[Figure]]
"""Gives what is known by now of a finished run's adapter; nothing where nothing is."""


def late_figures(store: Store, request: RunRequest, result: RunResult, settings: Settings) -> tuple[Figure, ...]:
    """What all of :data:`PROVIDERS` know."""
    return tuple(figure for provider in PROVIDERS for figure in provider(store, request, result, settings))


def cost_figures(store: Store, request: RunRequest, result: RunResult, settings: Settings) -> Iterable[Figure]:
    """The run's price; absent where the settings name none."""
    if settings.cost.per_hour == 0:
        return [Figure("cost", None, reason="cost.per_hour names no price")]
    return [Figure("cost", price(result, settings.cost), n=1)]


PROVIDERS: tuple[Late, ...] = (cost_figures, feedback_figures, spot_check_figures)
