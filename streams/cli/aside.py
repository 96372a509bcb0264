"""What was set aside, and why: dead letters, quarantine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from streams.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from pipeline.home import Home


@click.group("deadletters", short_help="List what could not be handled.")
def deadletters_command() -> None:
    """Mails and events that could not be handled."""


@deadletters_command.command("list")
@json_option
@click.pass_obj
def list_command(home: Home, as_json: bool) -> None:
    """List them, with stage and reason."""
    from streams.cli.opening import opened

    columns = ("id", "mailbox", "feed", "cursor", "stage", "reason", "attempts", "at")
    with opened(home) as store:
        listed = ", ".join(f'"{name}"' for name in columns)
        rows = store.query(f'SELECT {listed} FROM dead_letters ORDER BY "at", id')
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    elif rows:
        print_table(columns, rows)
    else:
        click.echo("No dead letters.")


@click.group("quarantine", short_help="List messages that would join two splits.")
def quarantine_command() -> None:
    """Messages that join threads of different splits, and what builds on them."""


@quarantine_command.command("list", short_help="List messages, and the threads they would join.")
@json_option
@click.pass_obj
def quarantine_list_command(home: Home, as_json: bool) -> None:
    """List quarantined messages with the threads that they would have joined."""
    from streams.cli.opening import opened

    columns = ("mailbox", "message_key", "thread_id", "window_idx", "date", "sender", "subject", "would_join")
    with opened(home) as store:
        rows = store.query(
            """
            SELECT m.mailbox, m.message_key, m.thread_id, m.window_idx, m.date, m.sender, m.subject,
                   list(DISTINCT b.other_thread_id ORDER BY b.other_thread_id) FILTER (b.other_thread_id IS NOT NULL)
            FROM messages m LEFT JOIN bridges b USING (mailbox, message_key)
            WHERE m.split = 'quarantine' GROUP BY ALL ORDER BY m.mailbox, min(m.arrival_ordinal)
            """
        )
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    elif rows:
        print_table(columns, rows)
    else:
        click.echo("Nothing is quarantined.")
