"""`report`: one run on one page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from streams.cli.output import json_option, print_json

if TYPE_CHECKING:
    from pipeline.home import Home


@click.command("report", short_help="Write a run's report as one HTML page.")
@click.argument("run_id", metavar="RUN")
@json_option
@click.pass_obj
def report_command(home: Home, run_id: str, as_json: bool) -> None:
    """Write report.html of the run RUN (its id, or its adapter's) anew, and print where it lies.

    One file that loads nothing and runs no script. It quotes mail: it is readable by you alone.
    """
    from streams.cli.opening import opened
    from streams.report.writing import write_report

    with opened(home) as store:
        path = write_report(store, home, run_id)
    if as_json:
        print_json({"path": str(path)})
    else:
        click.echo(path)
