"""The command that stays: run."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import click

from streams.cli.output import print_table

if TYPE_CHECKING:
    from pipeline.home import Home
    from streams.daemon.board import DaemonState


@click.command("run", short_help="Follow the feeds, close windows, retrain, until stopped.")
@click.option("--until-idle", is_flag=True, help="Stop when every feed was read and nothing is left to train.")
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice(["feed", "parse", "assign", "train", "deploy", "all"]),
    default=["all"],
    show_default=True,
    help="Only this part, with a broker (bus: kafka); may be given several times.",
)
@click.pass_obj
def run_command(home: Home, until_idle: bool, roles: tuple[str, ...]) -> int:
    """Follow the feeds that the settings name, close windows and retrain, until stopped (SIGTERM or Ctrl-C).

    Other commands work meanwhile, through the daemon. With `auto_retrain: true` it retrains by itself; else
    `mailtide retrain --confirm` asks it to.
    """
    from pipeline.errors import StoreHeldError
    from streams.cli.opening import settings_of
    from streams.daemon.logs import set_up_logs
    from streams.daemon.running import ROLES, Daemon
    from streams.daemon.screen import screen

    settings = settings_of(home)
    daemon = Daemon(home, settings, ROLES if "all" in roles else roles)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: daemon.stop())
    drawn = settings.daemon.log == "text" and sys.stderr.isatty()
    with screen(daemon, drawn=drawn) as handler:
        set_up_logs(settings.daemon.log, handler)
        if until_idle:
            daemon.finish()
        try:
            daemon.run()
        except StoreHeldError as error:
            pid = _running(home)
            if pid is None:
                raise
            raise StoreHeldError(
                f"a daemon runs in {home.root} already, as process {pid}", pid=pid, hint="see it with `mailtide status`"
            ) from error
    return 0


def _running(home: Home) -> int | None:
    """The process of the daemon that answers for the home."""
    from pipeline.errors import MailtideError
    from streams.cli.opening import opened
    from streams.inspecting.standing import state_of

    try:
        with opened(home) as store:
            state = state_of(store)
    except MailtideError:
        return None
    return None if state is None else state.pid


def tell_daemon(state: DaemonState) -> None:
    """A daemon's state for people."""
    from streams.daemon.wording import embedding_line, training_line

    click.echo(f"Daemon {state.pid}, since {state.started_at:%Y-%m-%d %H:%M} UTC: {training_line(state)}")
    if line := embedding_line(state):
        click.echo(line)
    rows = [(one.mailbox, one.source, one.doing, one.read, one.new, one.trouble) for one in state.feeds]
    if rows:
        print_table(("mailbox", "feed", "", "mails", "new", "trouble"), rows)
