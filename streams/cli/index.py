"""`index`: how the search indexes stand, and making them anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from streams.cli.output import json_option, print_json, print_table, progress
from streams.cli.suggesting import suggest

if TYPE_CHECKING:
    from pipeline.home import Home


@click.group("index", short_help="Show or rebuild the indexes that ask searches.")
def index_command() -> None:
    """The indexes that `ask` searches. They are derived from the store and may be removed at any time."""


@index_command.command("status", short_help="Show what is indexed, and how far behind the mail it is.")
@click.option("--mailbox", help="Only this mailbox.")
@json_option
@click.pass_obj
def status_command(home: Home, mailbox: str | None, as_json: bool) -> None:
    """What is indexed, how many mails behind, and whether the bytes are those recorded."""
    from pipeline.errors import MailtideError
    from registry.finding import chosen_engine
    from registry.named import mailboxes_of
    from streams.cli.opening import opened, settings_of
    from streams.indexing import SERVER, server_standing, standings_of

    settings = settings_of(home)
    with opened(home) as store:
        names = mailboxes_of(store, mailbox)
        found = standings_of(store, home, settings, names)
    trouble = ""
    if settings.index.engine == SERVER:
        try:
            found += [server_standing(home, settings, name, lambda: opened(home)) for name in names]
        except MailtideError as error:  # the other indexes stand as they do
            trouble = str(error)
    engines = {name: chosen_engine(settings.index, home, name) for name in names}
    if as_json:
        print_json({"engines": engines, "indexes": found, "server": trouble})
        return
    if not names:
        suggest("No mailbox yet: mailtide import PATH")
        return
    print_table(
        ("mailbox", "index", "state", "documents", "mails behind", "MB", "model"),
        [
            (one.mailbox, one.index, one.state, one.documents, one.lag, round(one.n_bytes / 1e6, 1), one.model)
            for one in found
        ],
    )
    if trouble:
        click.echo(trouble)
    for name, engine in engines.items():
        click.echo(f"`ask` searches {name} by {engine}.")


@index_command.command("rebuild", short_help="Make the indexes anew from the store.")
@click.option("--mailbox", help="Only this mailbox.")
@click.option("--fresh", is_flag=True, help="Embed every mail again, also those whose vectors are kept.")
@json_option
@click.pass_obj
def rebuild_command(home: Home, mailbox: str | None, fresh: bool, as_json: bool) -> None:
    """Make the indexes anew from the store. Only mail that no vector is kept for is embedded; the store is free meanwhile,
    and what was done stays when it is interrupted."""
    from streams.cli.opening import opened, settings_of
    from streams.indexing import rebuild

    settings = settings_of(home)
    with progress("embedding", quiet=as_json) as bar:
        rebuilt = rebuild(
            home,
            settings,
            lambda: opened(home),
            mailbox,
            fresh=fresh,
            told=lambda name, read, most: bar.update(read, most, f"{name}: {read:,} mails"),
        )
    if as_json:
        print_json(rebuilt)
        return
    print_table(
        ("mailbox", "index", "documents", "embedded", "sent"),
        [(one.mailbox, one.index, one.documents, one.embedded, one.sent) for one in rebuilt],
    )
    for name in {one.mailbox for one in rebuilt if one.missing}:
        click.echo(f"{name}: words only; {next(one.missing for one in rebuilt if one.mailbox == name)}")
