"""What was set aside, and why: dead letters, which can be replayed, and quarantine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

from streams.cli import output
from streams.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from pipeline.config.settings import Settings
    from pipeline.errors import BusError
    from pipeline.home import Home
    from streams.inspecting.asides import Replayed, Shown
    from streams.inspecting.broker_asides import BrokerAsides

T = TypeVar("T")


@click.group("deadletters", short_help="List, show and replay what could not be handled.")
def deadletters_command() -> None:
    """Mails and events that could not be handled."""


@deadletters_command.command("list")
@json_option
@click.pass_obj
def list_command(home: Home, as_json: bool) -> int:
    """List them, with stage, reason, and what a replay came to."""
    from streams.cli.opening import opened, settings_of
    from streams.inspecting.asides import letters, printable

    columns = ("id", "mailbox", "feed", "cursor", "stage", "reason", "attempts", "at", "replayed")
    with opened(home) as store:
        found = letters(store, home)
    of_broker, missing = _of_broker(settings_of(home), lambda broker: broker.letters())
    found = sorted([*found, *of_broker], key=lambda letter: letter.at)
    rows = [[getattr(letter, column) for column in columns] for letter in found]
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    elif rows:
        print_table(columns, [[printable(cell) if isinstance(cell, str) else cell for cell in row] for row in rows])
    elif not missing:
        click.echo("No dead letters.")
    return _without_broker(missing)


@deadletters_command.command("show")
@click.argument("letter_id", metavar="ID")
@click.option("--raw", "as_raw", is_flag=True, help="Only the bytes that are kept, to stdout.")
@json_option
@click.pass_obj
def show_command(home: Home, letter_id: str, as_raw: bool, as_json: bool) -> None:
    """Show all that is known of one, and how it begins."""
    from streams.cli.opening import opened, settings_of
    from streams.inspecting.asides import known, raw, show

    settings = settings_of(home)
    with opened(home) as store:
        here = settings.bus.kind == "embedded" or letter_id in known(store, [letter_id])
        if here:
            kept = raw(store, letter_id) if as_raw else None
            shown = show(store, home, letter_id)
    if not here:
        from streams.inspecting.broker_asides import broker_asides

        with broker_asides(settings.bus) as broker:
            kept = broker.raw(letter_id) if as_raw else None
            shown = broker.show(letter_id)
    if kept is not None:
        click.get_binary_stream("stdout").write(kept)
    elif as_json:
        print_json(shown)
    else:
        _tell(shown)


@deadletters_command.command("replay", short_help="Let mails arrive, and events be handled, once more.")
@click.argument("ids", metavar="ID...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that can be replayed and was not yet.")
@click.option("--mailbox", help="With --all: only those of this mailbox.")
@json_option
@click.pass_obj
def replay_command(home: Home, ids: tuple[str, ...], everything: bool, mailbox: str | None, as_json: bool) -> int:
    """Let mails arrive once more, and events go to the consumer that refused them."""
    from pipeline.errors import NothingToDo, UsageError
    from streams.cli.opening import settings_of

    if bool(ids) == everything:
        raise UsageError("name dead letters, or say --all", hint="`mailtide deadletters list` shows their ids")
    if mailbox is not None and not everything:
        raise UsageError("--mailbox goes with --all", hint="an id names its mailbox already")
    settings = settings_of(home)
    done, missing = _replayed_all(home, settings, mailbox) if everything else (_replayed(home, settings, ids), None)
    if not (done or missing):
        raise NothingToDo("there is nothing to replay", hint="`mailtide deadletters list` says what became of each")
    if as_json:
        print_json(done)
    elif done:
        print_table(("id", "mailbox", "outcome"), [(each.id, each.mailbox, each.outcome) for each in done])
    return _without_broker(missing) or (0 if any(each.asked for each in done) else 3)


def _replayed_all(home: Home, settings: Settings, mailbox: str | None) -> tuple[list[Replayed], BusError | None]:
    from registry.named import the_mailbox
    from streams.cli.opening import opened
    from streams.inspecting.asides import replay_all

    with opened(home, settings) as store:
        named = the_mailbox(store, mailbox) if mailbox else None
        done = replay_all(store, home, settings, named)
    of_broker, missing = _of_broker(settings, lambda broker: broker.replay_all(named))
    return [*done, *of_broker], missing


def _replayed(home: Home, settings: Settings, ids: tuple[str, ...]) -> list[Replayed]:
    """In the order given; the broker is asked only about what the store does not have."""
    from streams.cli.opening import opened
    from streams.inspecting.asides import known, replay

    with opened(home) as store:
        here = known(store, ids) if settings.bus.kind == "kafka" else frozenset(ids)
    done: list[Replayed] = []
    if others := [each for each in ids if each not in here]:
        from streams.inspecting.broker_asides import broker_asides

        with broker_asides(settings.bus) as broker:
            done += broker.replay(others)
    if here:
        with opened(home, settings) as store:
            done += replay(store, home, settings, [each for each in ids if each in here])
    order = {each: place for place, each in enumerate(ids)}
    return sorted(done, key=lambda each: order[each.id])


def _of_broker(settings: Settings, ask: Callable[[BrokerAsides], list[T]]) -> tuple[list[T], BusError | None]:
    """What the broker's dead letters give, where there is a broker, and why they do not."""
    if settings.bus.kind == "embedded":
        return [], None
    from pipeline.errors import BusError
    from streams.inspecting.broker_asides import broker_asides

    try:
        with broker_asides(settings.bus) as broker:
            return ask(broker), None
    except BusError as error:
        return [], error


def _without_broker(missing: BusError | None) -> int:
    """Says that only the store's were told, and gives the exit code."""
    if missing is None:
        return 0
    click.echo(f"mailtide: the broker's dead letters are missing here: {missing}", err=True)
    return 1


def _tell(shown: Shown) -> None:
    from streams.inspecting.asides import printable

    letter = shown.letter
    told = {
        "id": letter.id,
        "mailbox": letter.mailbox,
        "feed": f"{letter.feed} ({shown.source})" if shown.source else letter.feed,
        "cursor": letter.cursor,
        "received": output.shown(letter.received_at),
        "set aside": f"{output.shown(letter.at)}, by {letter.stage}, after {letter.attempts} attempts",
        "reason": letter.reason,
        "replayed": letter.replayed or "no",
        "kept": f"{shown.size:,} bytes" + (f", sha256 {shown.sha256}" if shown.sha256 else ""),
    }
    for name, value in told.items():
        click.echo(f"{name:<10} {printable(value)}")
    if shown.beginning:
        click.echo()
        for line in shown.beginning:
            click.echo(f"  {line}")


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
