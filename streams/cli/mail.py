"""Commands that bring mail in: init, import, parse, close, windows."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streams.cli.output import json_option, print_json, print_table, progress, say
from streams.cli.suggesting import suggest

if TYPE_CHECKING:
    from pipeline.home import Home
    from streams.owning.batch import Taken
    from streams.owning.ingest import Summary

set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting, e.g. --set train.epochs=3."
)


@click.command("init", short_help="Make a home; what freezes, freezes here.")
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="Settings to start from (YAML).")
@set_option
@click.option(
    "--people-key",
    "key_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="64 hex digits to hash people with; drawn at random unless given.",
)
@json_option
@click.pass_obj
def init_command(home: Home, config: Path | None, overrides: tuple[str, ...], key_file: Path | None, as_json: bool) -> None:
    """Make a home; what freezes, freezes here."""
    from pipeline.arrival.people import PeopleKey
    from pipeline.config.configuration import load
    from streams.homes import make_home

    settings = load(config, environment=os.environ, overrides=overrides)
    key = PeopleKey.read(key_file) if key_file else PeopleKey.draw()
    make_home(home, settings, key)
    if as_json:
        print_json({"home": home.root, "seed": settings.seed, "split": settings.split.model_dump()})
        return
    split = settings.split
    click.echo(f"Made {home.root}")
    click.echo(
        f"Frozen for good: seed {settings.seed}; train {split.train:g}, val {split.val:g}, test {split.test:g}; "
        f"chunks of at most {settings.chunk.max_tokens:,} tokens by the ruler {settings.chunk.ruler!r}."
    )
    reads = settings.model.builtin.context
    if settings.model.base == "builtin" and settings.chunk.max_tokens > reads // 2:
        # On list mail a token by the ruler is 1.8 tokens of the built-in model's own.
        click.echo(
            f"The built-in model reads {reads:,} tokens, about {reads // 2:,} by the ruler, and does not learn the rest of "
            f"a longer chunk: for it, init with --set chunk.max_tokens={reads // 2}."
        )
    suggest("Next: mailtide import PATH")


@click.command("import", short_help="Feed mboxes and Maildirs to their end, each mail once.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, readable=False))
@click.option("--mailbox", help="The mailbox to import into.  [default: the only one, else main]")
@click.option(
    "--clock",
    type=click.Choice(["arrival", "header"]),
    help="What times windows, frozen per mailbox: arrival, or header to replay an archive as if live.",
)
@json_option
@click.pass_obj
def import_command(home: Home, paths: tuple[Path, ...], mailbox: str | None, clock: str | None, as_json: bool) -> None:
    """Feed mbox archives and Maildir folders to their end; mail that is already here is not taken twice."""
    from pipeline.domain import Clock
    from streams.cli.opening import opened, settings_of, tell_news
    from streams.owning.ingest import import_archives

    settings = settings_of(home)
    with opened(home, settings) as store, progress("import", quiet=as_json) as bar:

        def on_progress(done: int, total: int, taken: Taken) -> None:
            bar.update(done, total, f"{taken.read:,} mails, {taken.new:,} new")

        summary = import_archives(
            store,
            home,
            settings,
            paths,
            mailbox=mailbox,
            clock=Clock(clock) if clock else None,
            on_progress=on_progress,
        )
    if as_json:
        print_json(summary)
    else:
        _tell(summary, settings.window.bootstrap)
        _tell_left_out(paths)
    tell_news(home, settings)


def _tell(summary: Summary, bootstrap: int) -> None:
    rate = summary.read / summary.seconds if summary.seconds else 0.0
    print_table(
        ("mailbox", "read", "new", "duplicates", "quarantined", "dead letters", "windows closed"),
        [
            (
                summary.mailbox,
                summary.read,
                summary.new,
                summary.duplicates,
                summary.quarantined,
                summary.dead_letters,
                len(summary.windows_closed),
            )
        ],
    )
    if summary.read:
        click.echo(f"{summary.seconds:.1f} s, {rate:,.0f} mails/s.")
    else:
        click.echo("Nothing came since the last import.")
    if summary.open_messages:
        why = ""
        if summary.open_window == 0 and summary.open_messages < bootstrap:
            why = f" (it waits for {bootstrap:,}, or for `mailtide close {summary.mailbox}`)"
        suggest(f"Window {summary.open_window} is open with {summary.open_messages:,} mails{why}.")
    if summary.windows_closed:
        suggest("Next: mailtide plan")


def _tell_left_out(paths: tuple[Path, ...]) -> None:
    """Folders of a Maildir++ are named one by one, and who named the outer one alone may not know."""
    from streams.feeds.opening import folders_left_out

    left = folders_left_out(paths)
    if left:
        names = ", ".join(path.name for path in left[:5]) + (" ..." if len(left) > 5 else "")
        say(f"Left out: {len(left):,} folder{'s' * (len(left) > 1)} inside ({names}); name each by itself, like {left[0]}")


@click.command("parse", short_help="Show what one mail becomes, touching nothing.")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
def parse_command(file: Path) -> None:
    """Show what one mail becomes, as JSON, touching nothing; FILE may be - for standard input."""
    from pipeline.errors import UsageError
    from pipeline.parsing.mail import mail_json, parse_mail

    try:
        raw = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}", hint="name a file that holds one mail") from error
    print_json(mail_json(parse_mail(raw)))


@click.command("close", short_help="Close the open window of a mailbox by hand.")
@click.argument("mailbox")
@json_option
@click.pass_obj
def close_command(home: Home, mailbox: str, as_json: bool) -> None:
    """Close the open window of MAILBOX by hand."""
    from pipeline.errors import NothingToDo
    from registry.named import the_mailbox
    from streams.cli.opening import opened, settings_of, tell_news
    from streams.owning.ingest import close_by_hand

    settings = settings_of(home)
    with opened(home, settings) as store:
        name = the_mailbox(store, mailbox)
        taken = close_by_hand(store, home, settings, name)
    if not taken.closed:
        raise NothingToDo(f"the open window of {name} holds no mail", hint="an empty window cannot close")
    if as_json:
        print_json({"mailbox": name, "windows_closed": taken.closed})
    else:
        suggest(f"Closed window {taken.closed[-1]} of {name}. Next: mailtide plan {name}")
    tell_news(home, settings)


@click.command("windows", short_help="List the training windows.")
@json_option
@click.pass_obj
def windows_command(home: Home, as_json: bool) -> None:
    """List the training windows."""
    from streams.cli.opening import opened

    columns = ("mailbox", "window_idx", "opened_at", "closed_at", "reason", "n_messages", "n_chunks")
    with opened(home) as store:
        rows = store.query(f"SELECT {', '.join(columns)} FROM windows ORDER BY mailbox, window_idx")
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    elif rows:
        print_table(columns, rows)
    else:
        suggest("No window yet: mailtide import PATH")
