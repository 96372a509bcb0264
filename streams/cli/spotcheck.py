"""The command spotcheck: people judge two adapters' replies in blind order."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING

import click

from streams.cli.output import json_option, print_json, print_table, progress
from streams.cli.suggesting import suggest
from streams.documents import plain

if TYPE_CHECKING:
    from pipeline.config.settings import Settings
    from pipeline.home import Home
    from pipeline.runs.spotsheet import Check
    from registry.journal import Status
    from registry.objections import Objection
    from registry.spotcheck import Preference, Said
    from streams.spotcheck.judging import Note, Pairing, Sitting


@click.command("spotcheck", short_help="Judge two adapters' replies in blind order.")
@click.argument("mailbox", required=False)
@click.option("--n", type=click.IntRange(1, 1000), default=25, show_default=True, help="Replies to judge at most.")
@click.option("--adapter", metavar="ID", help="Whom to judge.  [default: the newest candidate, else the champion]")
@click.option("--against", metavar="ID", help="Beside whom; base is the bare base.  [default: the champion]")
@click.option("--seed", type=int, help="Draws the sample.  [default: the setting seed]")
@click.option("--tokens", type=click.IntRange(8, 1024), default=96, show_default=True, help="Length of a reply at most.")
@click.option("--terminal", is_flag=True, help="Judge here instead of on a page.")
@click.option("--open", "browse", is_flag=True, help="Open the page in the browser.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Of the page.  [default: any that is free]")
@click.option("--show", "only_show", is_flag=True, help="Only show what was judged so far.")
@json_option
@click.pass_obj
def spotcheck_command(
    home: Home,
    mailbox: str | None,
    n: int,
    adapter: str | None,
    against: str | None,
    seed: int | None,
    tokens: int,
    terminal: bool,
    browse: bool,
    port: int,
    only_show: bool,
    as_json: bool,
) -> None:
    """Judge replies of two adapters to held-out mails of MAILBOX, side by side and in blind order: on a page that only this
    machine can open, or with --terminal. Every verdict is kept at once; the same command goes on where it stopped. The win
    rate is shown at the end, and the gate hears of it.
    """
    from registry.named import the_mailbox
    from registry.spotcheck import preferences, standing
    from streams.cli.opening import opened, settings_of

    settings = settings_of(home)
    if only_show:
        with opened(home) as store:
            found = preferences(store, mailbox if mailbox is None else the_mailbox(store, mailbox))
        _show_all(found, as_json)
        return
    from pipeline.arrival.people import PeopleKey
    from streams.spotcheck.judging import Sitting, pairings
    from streams.spotcheck.pairing import Wish, check_of, sheet_of

    with opened(home) as store:
        name = the_mailbox(store, mailbox)
        check = check_of(store, home, settings, name, Wish(adapter, against, n, seed, tokens))
    with progress("replies are written", quiet=as_json) as bar:
        sheet = sheet_of(home, check, bar.update)
    pairs = pairings(check, sheet, PeopleKey.read(home.people_key))
    with opened(home) as store:
        judged = {row.message_key for row in standing(store, name, check.sides[0].name, check.sides[1].name)}
    sitting = Sitting(pairs, judged, _keep(home, settings, name))
    same = len(sheet.lines) - len(pairs)
    if same:
        click.echo(f"{same} of {len(sheet.lines)} are left out: both wrote the same.", err=True)
    if sitting.current is not None:
        _judge(home, settings, check, sitting, terminal=terminal, err=as_json, browse=browse, port=port)
    elif pairs:
        click.echo(f"All {len(pairs)} were judged before; a larger --n asks about more.", err=True)
    preferred, objection, status = _outcome(home, settings, check)
    if as_json:
        print_json({**plain(preferred), "same": same, "gate": plain(objection)})
    else:
        from streams.spotcheck.wording import told

        for line in told(preferred, objection, status):
            click.echo(line)


def _judge(
    home: Home, settings: Settings, check: Check, sitting: Sitting, *, terminal: bool, err: bool, browse: bool, port: int
) -> None:
    from streams.spotcheck.wording import told

    if terminal:
        from streams.spotcheck.terminal import judge

        judge(sitting, err=err)
        return
    from streams.spotcheck.server import show

    def announce(address: str) -> None:
        click.echo(f"Judge at {address} (Ctrl-C stops, and the same command goes on)", err=True)
        if browse:
            click.launch(address)

    show(check.mailbox, sitting, lambda: told(*_outcome(home, settings, check)), port, announce)


def _keep(home: Home, settings: Settings, mailbox: str) -> Note:
    """Keeps each verdict as it is said: the store is open for as long as that takes, so that others can use it."""
    from pipeline.times import utc_now
    from registry.spotcheck import Judged, note
    from streams.cli.opening import opened

    judge = getpass.getuser()

    def keep(pair: Pairing, said: Said) -> None:
        line = pair.line
        judged = Judged(mailbox, line.message_key, line.thread_id, pair.first_name, pair.second_name, said, judge)
        with opened(home, settings) as store:
            note(store, judged, utc_now())

    return keep


def _outcome(home: Home, settings: Settings, check: Check) -> tuple[Preference, Objection, Status]:
    from registry.decide import journal
    from registry.objections import objections
    from registry.spotcheck import RULE, preference, spot_figure, standing
    from streams.cli.opening import opened

    own, other = (side.name for side in check.sides)
    with opened(home) as store:
        found = preference(standing(store, check.mailbox, own, other), check.mailbox, own, other)
        figure = spot_figure(store, check.mailbox, own, other, settings.gate)
        status = journal(store).adapter(own).status
    return found, next(one for one in objections([figure], settings.gate) if one.name == RULE), status


def _show_all(found: list[Preference], as_json: bool) -> None:
    if as_json:
        print_json(found)
    elif found:
        columns = (
            *("mailbox", "adapter", "against", "judged", "won", "lost", "tied", "both bad"),
            *("threads", "win rate", "low", "high"),
        )
        rows = [
            (
                *(one.mailbox, one.adapter_id, one.against, one.judged, one.won, one.lost, one.tied, one.both_bad),
                *(one.threads, one.win_rate, one.low, one.high),
            )
            for one in found
        ]
        print_table(columns, rows)
    else:
        suggest("Nobody has judged anything yet: mailtide spotcheck")
