"""Small pictures as inline SVG: curves, and a figure with the bar of its interval. Colours are those of the page's
style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 256
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 46


@dataclass(frozen=True, slots=True)
class Curve:
    """A named line through points; ``dots`` marks each of them."""

    name: str
    style: str
    points: tuple[tuple[float, float], ...]
    dots: bool = False


def curves(lines: Sequence[Curve], across: str) -> str:
    """Lines over one pair of axes; empty where there is nothing to draw."""
    points = [point for line in lines for point in line.points]
    if not points:
        return ""
    last = max(x for x, _ in points)
    first = min(x for x, _ in points)
    low, high = _range([y for _, y in points])

    def place(x: float, y: float) -> tuple[float, float]:
        share = (x - first) / (last - first) if last > first else 0.5
        return LEFT + share * (WIDTH - LEFT - RIGHT), TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="loss curves">']
    for value in _ticks(low, high):
        _, y = place(first, value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in dict.fromkeys((first, (first + last) / 2, last)):
        x, _ = place(value, low)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 26}" text-anchor="middle">{value:.0f}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{escape(across)}</text>')
    for line in lines:
        path = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in line.points)
        if len(line.points) > 1:
            parts.append(f'<polyline class="{line.style}" points="{path}"/>')
        if line.dots:
            parts += [
                '<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="4"/>'.format(line.style, *place(x, y))
                for x, y in line.points
            ]
    parts.append("</svg>")
    keys = "".join(f'<span><i class="{line.style}"></i>{escape(line.name)}</span>' for line in lines if line.points)
    return f'<div class="scroll">{"".join(parts)}</div><p class="key">{keys}</p>'


def bar(value: float, low: float | None, high: float | None, scale: tuple[float, float]) -> str:
    """A figure as a dot and its interval as a line, on a scale that a column of them shares; a mark stands at 0 if it lies
    within."""
    start, end = scale
    span = (end - start) or 1.0

    def at(number: float) -> float:
        return 4 + 112 * min(1.0, max(0.0, (number - start) / span))

    zero = f'<line class="zero" x1="{at(0):.1f}" x2="{at(0):.1f}" y1="1" y2="15"/>' if start < 0 < end else ""
    whisker = ""
    if low is not None and high is not None:
        whisker = f'<line class="whisker" x1="{at(low):.1f}" x2="{at(high):.1f}" y1="8" y2="8"/>'
    return (
        f'<svg class="bar" viewBox="0 0 120 16" aria-hidden="true"><line class="rail" x1="4" x2="116" y1="8" y2="8"/>'
        f'{zero}{whisker}<circle class="point" cx="{at(value):.1f}" cy="8" r="3.5"/></svg>'
    )


def share(part: float, whole: float) -> str:
    """A filled bar: so much of the whole."""
    width = 100 * part / whole if whole else 0.0
    return f'<span class="share"><span style="width:{min(100.0, width):.1f}%"></span></span>'


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers between the ends."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    count = math.floor(high / step) - math.ceil(low / step) + 1
    return [round((math.ceil(low / step) + place) * step, 10) for place in range(count)]
