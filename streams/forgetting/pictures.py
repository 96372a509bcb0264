"""A study as pictures: which windows each way of rehearsing forgot, and how forgetting grew from training to training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.home import atomic_path
from streams.forgetting.study import Study, Trained
from streams.whatif.picture import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from retrain.forgetting.figures import Floats

PANELS = 12


def draw_heat_map(study: Study, path: Path) -> None:
    """One panel per arm: how far each window stands above its best loss, after each training."""
    from matplotlib.figure import Figure

    shown = _chains(study)[:PANELS]
    across = math.isqrt(len(shown) - 1) + 1
    down = -(-len(shown) // across)
    figure = Figure(figsize=(3.4 * across + 1, 3.1 * down + 0.9), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False)
    most = max(float(np.nanmax(values)) for _, values in shown) or 1.0
    image = None
    for axes, (trained, values) in zip(grid.flat, shown, strict=False):
        image = axes.imshow(values.T, cmap="magma_r", vmin=0, vmax=most, aspect="auto")
        axes.set_title(trained.arm.name, loc="left", fontsize=10)
        axes.set_xlabel("after training on window", fontsize=8)
        axes.set_ylabel("val of window", fontsize=8)
        axes.set_xticks(range(values.shape[0]))
        axes.set_yticks(range(values.shape[1]))
        axes.tick_params(labelsize=8)
        for border in _borders(study.windows):
            axes.axvline(border, color="#0072b2", linewidth=0.8, linestyle=":")
            axes.axhline(border, color="#0072b2", linewidth=0.8, linestyle=":")
    for axes in grid.flat[len(shown) :]:
        axes.set_visible(False)
    if image is not None:
        bar = figure.colorbar(image, ax=grid, shrink=0.8)
        bar.set_label("nats per token above the best loss so far", fontsize=8)
    figure.suptitle(f"What was forgotten{_dotted(study, '; ')}", x=0.01, ha="left", fontsize=11)
    _save(figure, path)


def draw_curve(study: Study, path: Path) -> None:
    """Mean rise over the windows trained before, after each training, a line per arm."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8.6, 4.8), layout="constrained")
    axes = figure.subplots()
    for number, (trained, values) in enumerate(_chains(study)):
        trainings = range(1, values.shape[0])
        means = [float(np.nanmean(values[training, :training])) for training in trainings]
        axes.plot(
            list(trainings),
            means,
            label=trained.arm.name,
            color=COLOURS[number % len(COLOURS)],
            linestyle="-" if number < len(COLOURS) else "--",
            marker="o",
            markersize=3,
            linewidth=1.6,
        )
    for border in _borders(study.windows):
        axes.axvline(border, color="#888888", linewidth=0.8, linestyle=":")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(f"after training on window{_dotted(study, ' (', ')')}")
    axes.set_ylabel("nats per token")
    axes.set_title("Mean rise of all earlier windows above their best loss", loc="left", fontsize=11)
    axes.set_ylim(bottom=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    _save(figure, path)


def _chains(study: Study) -> list[tuple[Trained, Floats]]:
    """Every arm that went from window to window, with its rises."""
    return [(trained, trained.rises) for trained in study.arms if trained.figures.forgetting is not None]


def _dotted(study: Study, before: str, after: str = "") -> str:
    """What the dotted lines are, where there are any."""
    return f"{before}dotted: another archive begins{after}" if _borders(study.windows) else ""


def _borders(windows: Sequence[str]) -> list[float]:
    return [place - 0.5 for place in range(1, len(windows)) if windows[place] != windows[place - 1]]


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    path.chmod(0o644)
