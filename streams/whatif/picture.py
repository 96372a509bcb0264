"""A comparison of policies as a picture: windows, steps and rehearsal as the mail came in, and what each policy takes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UsageError
from pipeline.home import atomic_path
from pipeline.installing import install_hint
from streams.whatif.comparison import Comparison, Outcome, Step

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = {".png", ".svg", ".pdf"}
COLOURS = ("#222222", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""Colours that people with any colour vision can tell apart (M. Okabe and K. Ito), the reference in black."""

LONG = timedelta(days=2)
"""Closings within less than this are one import: time says nothing, and the axis counts mails."""

NAME_WIDTH = 64


def require_drawing(path: Path) -> None:
    """Raises ``UsageError`` before any work when a picture could not be drawn there."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{path} is no picture's name", hint=f"end it in {', '.join(sorted(FORMATS))}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path.parent} is no folder", hint="make it first")
    os.environ.setdefault("MPLCONFIGDIR", str(Path(tempfile.gettempdir()) / f"mailtide-matplotlib-{os.getuid()}"))
    try:
        import matplotlib
    except ImportError as error:
        raise UsageError("matplotlib is not installed", hint=install_hint("plots")) from error
    matplotlib.use("agg")


def draw(found: Comparison, path: Path) -> None:
    """Draws four panels; writes the file whole or not at all."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    many = len(found.outcomes)
    figure = Figure(figsize=(11, 7.4 + 0.2 * many), layout=ConstrainedLayoutEngine(hspace=0.06, wspace=0.04))
    figure.suptitle(f"{found.mailbox}: {found.mails:,} mails under {many} policies", x=0.01, ha="left", fontsize=13)
    (windows, steps), (reached, total) = figure.subplots(2, 2)
    steps.sharex(windows)
    reached.sharex(windows)
    by_time = _by_time(found)
    end = max((_place(step, by_time) for outcome in found.outcomes for step in outcome.history), default=found.mails)
    for number, outcome in enumerate(found.outcomes):
        _curves(outcome, number, by_time, end, windows, steps, reached)
    _finish(windows, "Windows closed", by_time)
    _finish(steps, "Optimizer steps, added up", by_time)
    _finish(reached, "Earlier chunks rehearsed at least once, %", by_time)
    reached.set_ylim(0, max(5.0, reached.get_ylim()[1]))
    _totals(total, found)
    handles, labels = windows.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=2 if many > 3 else 1, frameon=False, fontsize=9)
    with atomic_path(path.absolute()) as temporary:
        figure.savefig(temporary, dpi=130, format=path.suffix.lower()[1:])


def _curves(outcome: Outcome, number: int, by_time: bool, end: Any, windows: Axes, steps: Axes, reached: Axes) -> None:
    style: dict[str, Any] = {
        "color": _colour(number),
        "label": _short(outcome.policy),
        "linewidth": 2.2 if number == 0 else 1.5,
        "linestyle": "-" if number < len(COLOURS) else "--",
        "zorder": 3 if number == 0 else 2,
    }
    places = [_place(step, by_time) for step in outcome.history]
    ran = [(place, step.run) for place, step in zip(places, outcome.history, strict=True) if step.run is not None]
    _stairs(windows, places, range(1, len(places) + 1), end, style)
    _stairs(steps, [place for place, _ in ran], accumulate(run.steps for _, run in ran), end, style)
    shares = [(place, 100 * run.reached / run.earlier) for place, run in ran if run.earlier]
    reached.plot([place for place, _ in shares], [share for _, share in shares], clip_on=False, **style)


def _stairs(axes: Axes, places: Sequence[Any], heights: Iterable[int], end: Any, style: dict[str, Any]) -> None:
    """A line that rises from 0 at each place and goes on level to ``end``."""
    up = [0, *heights]
    axes.step([*places[:1], *places, end], [*up[: len(places) + 1], up[-1]], where="post", **style)


def _place(step: Step, by_time: bool) -> Any:
    return step.closed_at if by_time else step.mails


def _by_time(found: Comparison) -> bool:
    times = [step.closed_at for outcome in found.outcomes for step in outcome.history]
    return bool(times) and max(times) - min(times) >= LONG


def _finish(axes: Axes, title: str, by_time: bool) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axes.set_title(title, loc="left", fontsize=10)
    if by_time:
        locator = AutoDateLocator(maxticks=7)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    else:
        axes.set_xlabel("mails arrived", fontsize=9)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_ylim(bottom=0)
    _plain(axes)


def _totals(axes: Axes, found: Comparison) -> None:
    """One bar per policy: money where an hour has a price, else time, else tokens where no pace is known."""
    values, title, written = _quantity(found)
    places = list(range(len(values)))
    axes.barh(places, values, color=[_colour(number) for number in places], height=0.62)
    for place, value in zip(places, values, strict=True):
        times = f"  x {value / values[0]:.2f}" if place and values[0] else ""
        axes.text(value, place, f" {written(value)}{times}", va="center", fontsize=9)
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_yticks([])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.3 * max([*values, 1e-9]))
    axes.xaxis.set_visible(False)
    _plain(axes)
    axes.spines["bottom"].set_visible(False)


def _quantity(found: Comparison) -> tuple[list[float], str, Any]:
    if all(outcome.cost is not None for outcome in found.outcomes):
        costs = [outcome.cost or 0.0 for outcome in found.outcomes]
        return costs, f"Estimated cost of all runs, {found.currency}", lambda value: f"{value:,.2f}"
    if found.pace is not None:
        hours = max(outcome.seconds or 0.0 for outcome in found.outcomes) >= 7200
        unit, name = (3600.0, "h") if hours else (60.0, "min")
        seconds = [(outcome.seconds or 0.0) / unit for outcome in found.outcomes]
        return seconds, "Estimated time of all runs, on this machine", lambda value: f"{value:,.1f} {name}"
    tokens = [outcome.tokens / 1000 for outcome in found.outcomes]
    return tokens, "Tokens trained (no run yet to take a time from)", lambda value: f"{value:,.0f} k"


def _plain(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _short(policy: str) -> str:
    return policy if len(policy) <= NAME_WIDTH else policy[: NAME_WIDTH - 1] + "…"
