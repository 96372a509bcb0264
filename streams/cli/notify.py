"""Commands about notices: notify test, notify list."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from streams.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from pipeline.home import Home


@click.group("notify", short_help="List notices of verdicts and failures, or send a test.")
def notify_command() -> None:
    """Notices to those that `notify.targets` names."""


@notify_command.command("test", short_help="Send a test notice to every target, or to one.")
@click.argument("target", required=False)
@json_option
@click.pass_obj
def test_command(home: Home, target: str | None, as_json: bool) -> int:
    """Send a test notice to TARGET, or to all, at once; exit code 1 if one does not take it."""
    from pipeline.errors import NothingToDo, NoticeError, SecretError, UsageError
    from pipeline.times import utc_now
    from streams.cli.opening import settings_of
    from streams.notices.notice import hand_over
    from streams.notices.wording import trial

    targets = settings_of(home).notify.targets
    if not targets:
        raise NothingToDo("the settings name nobody to tell", hint="name them under notify.targets (docs/operations.md)")
    if target is not None and target not in targets:
        raise UsageError(f"there is no target {target!r}", hint=f"notify.targets names: {', '.join(targets)}")
    found = []
    for name in targets if target is None else [target]:
        trouble, remark = "", ""
        try:
            remark = hand_over(targets[name], trial(name, utc_now()))
        except (NoticeError, SecretError) as error:
            trouble = str(error)
        found.append({"target": name, "kind": targets[name].kind, "sent": not trouble, "trouble": trouble or remark})
    if as_json:
        print_json(found)
    else:
        print_table(("target", "kind", "sent", "trouble"), [tuple(row.values()) for row in found])
    return 0 if all(row["sent"] for row in found) else 1


@notify_command.command("list", short_help="List what was told to whom, and what waits.")
@click.option("--last", type=click.IntRange(min=1), default=20, show_default=True, help="How many of those told, a target.")
@json_option
@click.pass_obj
def list_command(home: Home, last: int, as_json: bool) -> None:
    """List what every target was told last, and what it has still to be told."""
    from streams.cli.opening import opened, settings_of
    from streams.notices.finding import history

    with opened(home) as store:
        found = history(store, settings_of(home), last)
    if as_json:
        print_json(found)
    elif found:
        rows = [(one.target, one.notice_id, one.outcome, one.at, one.attempts, one.trouble) for one in found]
        print_table(("target", "notice", "", "at", "tries", "trouble"), rows)
    else:
        click.echo("Nothing was told, and nothing waits.")
