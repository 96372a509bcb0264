"""`benchmark`: what a model can do beside its mail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from streams.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from pipeline.home import Home
    from retrain.benchmarks.points import Loss
    from streams.benchmarking import Report


@click.command("benchmark", short_help="Score what an adapter can do beside its mail.")
@click.option("--adapter", "adapter_id", metavar="ID", help="The adapter to ask, or base.  [default: the champion]")
@click.option("--against", metavar="ID", help="Another adapter, or base, to hold it against on the same items.")
@click.option("--task", "tasks", metavar="NAME", multiple=True, help="A task, its file, or a folder of them; repeatable.")
@click.option("--mailbox", help="The mailbox, where there are several.")
@json_option
@click.pass_obj
def benchmark_command(
    home: Home, adapter_id: str | None, against: str | None, tasks: tuple[str, ...], mailbox: str | None, as_json: bool
) -> None:
    """Put benchmark tasks to an adapter: those of eval.benchmarks, else all that come with mailtide. Nothing is kept, and
    nothing is fetched."""
    from registry.named import the_mailbox
    from streams.benchmarking import ask, what_to_ask
    from streams.cli.opening import opened, settings_of

    settings = settings_of(home)
    with opened(home) as store:
        asked = what_to_ask(store, home, settings, the_mailbox(store, mailbox), adapter_id, against, tasks)
    report = ask(home, settings, asked, lambda task, model: click.echo(f"{task}: {model}", err=True))
    if as_json:
        print_json(report)
    else:
        _tell(report, builtin=asked.base.kind == "builtin")


def _tell(report: Report, *, builtin: bool) -> None:
    print_table(
        ("task", "metric", "model", "n", "score", "stderr", "95 %"),
        [
            (
                one.task,
                one.metric,
                one.adapter_id,
                one.n,
                f"{one.value:.3f}",
                _number(one.stderr),
                _range(one.ci_low, one.ci_high),
            )
            for one in sorted(report.scores, key=lambda one: one.task)
        ],
    )
    if report.lost is not None:
        print_table(
            ("task", "weight", "n", "points lost", "95 %"), _lost(report.lost), title="Points lost, on the same items"
        )
    if builtin:
        click.echo("The built-in model is far too small for these tasks: where there are four answers, chance is 0.25.")


def _lost(lost: Loss) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [
        (one.task, f"{one.weight:g}", one.n, f"{one.points:+.2f}", _range(*one.bounds)) for one in lost.tasks
    ]
    return [*rows, ("mean", "", lost.n, f"{lost.points:+.2f}", _range(lost.low, lost.high))]


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _range(low: float | None, high: float | None) -> str:
    return "unknown" if low is None or high is None else f"{low:.3f} to {high:.3f}"
