"""Commands about this machine and this home: status, doctor, demo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from streams.cli.output import json_option, print_json, print_table
from streams.cli.suggesting import repeatable, suggest

if TYPE_CHECKING:
    from pipeline.home import Home


@click.command("status", short_help="Show where things stand.")
@json_option
@click.pass_obj
def status_command(home: Home, as_json: bool) -> None:
    """Show where things stand."""
    from pipeline.times import utc_now
    from registry.spending import spending
    from streams.cli.daemon import tell_daemon
    from streams.cli.deploying import shown
    from streams.cli.opening import opened, settings_of
    from streams.cli.plans import spent_line
    from streams.inspecting.standing import deployments, standings, state_of

    settings = settings_of(home)
    cost = settings.cost
    with opened(home) as store:
        found = standings(store)
        daemon = state_of(store)
        deployed = deployments(home, settings)
        spent = spending(store, cost, utc_now())
    if as_json:
        document = {"home": home.root, "daemon": daemon, "mailboxes": found, "spent": spent}
        print_json({**document, "deployments": [shown(one) for one in deployed]})
        return
    click.echo(f"Home {home.root}")
    if daemon is not None:
        tell_daemon(daemon)
    if not found:
        suggest("No mail yet: mailtide import PATH")
    if cost.per_hour:
        click.echo(f"Training cost {spent_line(spent)}")
    several = len(found) > 1
    for one in found:
        named = f" {one.mailbox}" if several else ""
        newest = f", newest {one.newest:%Y-%m-%d}" if one.newest else ""
        click.echo(f"\n{one.mailbox} ({one.clock} clock): {one.messages:,} mails in {one.threads:,} threads{newest}")
        opening = f"; window {one.open_window} is open with {one.open_messages:,} mails" if one.open_messages else ""
        click.echo(f"  windows   {one.windows_closed:,} closed{opening}")
        if one.waiting:
            waiting = "1 window waits" if one.waiting == 1 else f"{one.waiting:,} windows wait"
            suggest(f"  training  {waiting}: mailtide plan{named}")
        if one.champion is None:
            made = settings.model.base != "builtin" or any(home.base(one.mailbox, "x").parent.glob("*/base.json"))
            answers = "the bare base answers" if made else "mail is quoted until a run makes the base"
            click.echo(f"  champion  none, {answers}")
        else:
            click.echo(f"  champion  {one.champion}, since {one.champion_since:%Y-%m-%d %H:%M} UTC")
        for target in (each for each in deployed if each.mailbox == one.mailbox):
            if target.trouble:
                click.echo(f"  {target.target:<9} serves {target.adapter_id or 'nothing'}: {target.trouble}")
            elif target.adapter_id != one.champion:
                suggest(f"  {target.target:<9} serves {target.adapter_id or 'nothing'} so far: mailtide deploy")
        if one.pending_run is not None:
            goes_on = "the daemon" if daemon is not None else f"mailtide retrain{named} --confirm"
            suggest(f"  run       {one.pending_run} has no verdict yet: {goes_on} goes on with it")
        if one.quarantined or one.dead_letters:
            letters = f"{one.dead_letters:,} dead letter{'' if one.dead_letters == 1 else 's'}"
            click.echo(f"  set aside {one.quarantined:,} quarantined, {letters}")


@click.command("doctor", short_help="Show what is missing here, with the fix.")
@json_option
@click.pass_obj
def doctor_command(home: Home, as_json: bool) -> int:
    """Show what is missing on this machine, with the fix."""
    from streams.inspecting.doctor import diagnose

    checks = diagnose(home)
    if as_json:
        print_json(checks)
    else:
        marks = {True: "ok", False: "missing", None: "-"}
        print_table(
            ("", "what", "found", "fix"), [(marks[one.ok], one.name, one.detail, repeatable(one.fix)) for one in checks]
        )
    return 1 if any(one.ok is False for one in checks) else 0


@click.command("demo", short_help="Run the whole path on a generated mailbox.")
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo-home"),
    show_default=True,
    help="Where the demo's home is made; what a former demo left there is replaced.",
)
@click.option("--seed", type=int, default=7, show_default=True, help="Of the generated mailbox and of the home.")
@click.option(
    "--windows", type=click.IntRange(min=1), help="Retrain for the first N windows only.  [default: all]", metavar="N"
)
def demo_command(keep: Path, seed: int, windows: int | None) -> None:
    """Run the whole path on a generated mailbox: import, one retrain per window, an answered question."""
    from streams.demo.tour import tour

    tour(keep.absolute(), seed, windows)
