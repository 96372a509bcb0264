"""The command that makes a run again and says what came out the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from streams.cli.output import json_option, print_json, print_table, progress

if TYPE_CHECKING:
    from pipeline.home import Home
    from streams.runs.reproduction import Derived


@click.command("reproduce", short_help="Make a run again from its shards and compare every byte.")
@click.argument("run_id")
@click.option("--archived", is_flag=True, help="Train from the training set kept with the run.")
@json_option
@click.pass_obj
def reproduce_command(home: Home, run_id: str, archived: bool, as_json: bool) -> int:
    """Make a run again from its shards, beside the first, and say what is identical and what differs.

    Takes as long as the run did. Exit code 0: identical; 1: something differs.
    """
    from streams.runs.reproduction import reproduce
    from streams.runs.runner import require_training
    from streams.runs.telling import step_line

    require_training()
    with progress(f"reproduce {run_id}", quiet=as_json, guess=False) as bar:
        found = reproduce(home, run_id, lambda step: bar.update(step.done, step.total, step_line(step)), archived=archived)
    if as_json:
        print_json(found)
        return 0 if found.identical else 1
    rows = [(one.name, _verdict(one), one.recorded[:12], one.again[:12]) for one in found.derived]
    print_table(("", "", "recorded", "again"), rows)
    for condition in found.conditions:
        click.echo(f"Another {condition.name}: {condition.now or 'none'}, and {condition.recorded or 'none'} then.")
    if found.identical:
        click.echo("Identical, byte for byte.")
    elif found.conditions:
        click.echo("Bytes are the same only on the same hardware and software.")
    return 0 if found.identical else 1


def _verdict(one: Derived) -> str:
    if one.same:
        return "identical"
    if not one.kept:
        return "missing now"
    return "changed since" if one.kept != one.recorded else "DIFFERS"
