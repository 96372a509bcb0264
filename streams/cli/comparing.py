"""`runs compare`: two runs side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pipeline.ranges import ranges
from streams.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from pipeline.home import Home
    from pipeline.intervals import Interval
    from registry.side_by_side import SideBySide
    from retrain.benchmarks.points import Loss


@click.command("compare", short_help="Two runs side by side, their losses paired by chunk.")
@click.argument("first")
@click.argument("second")
@json_option
@click.pass_obj
def compare_command(home: Home, first: str, second: str, as_json: bool) -> None:
    """Compare the runs FIRST and SECOND (run ids, or ids of their adapters) on the held-out chunks that both were measured
    on. A difference is SECOND less FIRST, so below 0 SECOND is better."""
    from registry.side_by_side import compare_runs
    from streams.cli.opening import opened

    with opened(home) as store:
        found = compare_runs(store, first, second)
    lost = _benchmarks(home, found)
    if as_json:
        print_json({**_document(found), "benchmarks": lost})
    else:
        _tell(found, lost)


def _benchmarks(home: Home, found: SideBySide) -> Loss | None:
    """Points that the second run loses against the first on items that both have answered, tasks counted alike; None where
    they measured none in common."""
    from retrain.benchmarks.items import ITEMS, read_items
    from retrain.benchmarks.points import loss

    first, second = (
        [
            item
            for item in read_items(home.run(side.run_id) / ITEMS)
            if (item.adapter_id, item.checkpoint) == (side.adapter_id, side.checkpoint)
        ]
        for side in (found.first, found.second)
    )
    return loss(second, first, {})


def _tell(found: SideBySide, lost: Loss | None) -> None:
    one, two = found.first, found.second
    print_table(
        ("", "run", "adapter", "checkpoint", "verdict", "new windows"),
        [
            (name, side.run_id, side.adapter_id, side.checkpoint, side.status, ranges(side.windows))
            for name, side in (("first", one), ("second", two))
        ],
    )
    print_table(
        ("split", "windows", "chunks", "threads", "first", "second", "second less first", "95 %", "shown"),
        [
            (
                row.split,
                row.windows,
                row.chunks,
                row.difference.n_clusters,
                row.first.value,
                row.second.value,
                f"{row.difference.value:+.3f}",
                _bounds(row.difference),
                _shown(row.difference),
            )
            for row in found.paired
        ],
        title=f"Loss on the same chunks, {found.paired[0].unit.replace('_', ' ')}, by thread",
    )
    if found.unpaired:
        click.echo(f"{found.unpaired:,} chunks were measured by only one of them and are left out.")
    if lost is not None:
        print_table(
            ("task", "items", "first", "second", "points lost by second", "95 %"),
            [
                (task.task, task.n, f"{task.theirs:.3f}", f"{task.ours:.3f}", *_points(task.points, task.bounds))
                for task in lost.tasks
            ]
            + [("mean", lost.n, "", "", *_points(lost.points, (lost.low, lost.high)))],
            title="Benchmarks, on the same items",
        )
    print_table(
        ("split", "figure", one.run_id, two.run_id),
        [(row.split, row.metric, _figure(row.first), _figure(row.second)) for row in found.reported],
        title="As each run reported it, on its own sample: to read, not to subtract",
    )


def _points(points: float, bounds: tuple[float | None, float | None]) -> tuple[str, str]:
    low, high = bounds
    return f"{points:+.2f}", "unknown" if low is None or high is None else f"{low:+.2f} to {high:+.2f}"


def _shown(difference: Interval) -> str:
    """What the interval shows, if anything."""
    if difference.high < 0:
        told = "second is better"
    elif difference.low > 0:
        told = "first is better"
    else:
        told = "nothing"
    return f"{told} (few threads)" if difference.few else told


def _bounds(interval: Interval) -> str:
    low, high = interval.bounds
    return "unknown" if low is None or high is None else f"{low:+.3f} to {high:+.3f}"


def _figure(figure: tuple[float, float | None, float | None] | None) -> str:
    if figure is None:
        return "-"
    told = [f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3f}" for value in figure if value is not None]
    return told[0] if len(told) < 3 else f"{told[0]} ({told[1]} to {told[2]})"


def _document(found: SideBySide) -> dict[str, Any]:
    """The comparison as JSON; bounds that are not known are null."""
    return {
        "first": found.first,
        "second": found.second,
        "paired": [
            {
                "split": row.split,
                "windows": row.windows,
                "unit": row.unit,
                "chunks": row.chunks,
                "threads": row.difference.n_clusters,
                "first": row.first.value,
                "second": row.second.value,
                "difference": row.difference.value,
                "ci_low": row.difference.bounds[0],
                "ci_high": row.difference.bounds[1],
                "few": row.difference.few,
            }
            for row in found.paired
        ],
        "unpaired": found.unpaired,
        "reported": found.reported,
    }
