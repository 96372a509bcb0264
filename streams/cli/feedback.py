"""The command feedback: how often each adapter is overruled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from streams.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from pipeline.home import Home


@click.command("feedback", short_help="Show how often people overrule each adapter.")
@click.option("--mailbox", help="Only this mailbox.")
@json_option
@click.pass_obj
def feedback_command(home: Home, mailbox: str | None, as_json: bool) -> None:
    """Show what people said of the answers of each adapter (POST /v1/feedback): thumbs, corrected replies, and the share of
    answers that they overruled, with 95 % bounds."""
    from registry.feedback import overrides, standing
    from registry.named import the_mailbox
    from streams.cli.opening import opened

    with opened(home) as store:
        found = overrides(standing(store, mailbox if mailbox is None else the_mailbox(store, mailbox)))
    if as_json:
        print_json(found)
    elif found:
        rows = [
            (
                one.mailbox,
                one.adapter_id,
                one.rated,
                one.up,
                one.down,
                one.corrected,
                one.users,
                one.share,
                one.low,
                one.high,
            )
            for one in found
        ]
        columns = ("mailbox", "adapter", "rated", "up", "down", "corrected", "users", "overruled", "low", "high")
        print_table(columns, rows)
    else:
        click.echo("Nobody has said anything of an answer yet.")
