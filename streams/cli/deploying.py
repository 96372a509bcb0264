"""``mailtide deploy``: brings every deploy target to the champion, and says how each stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from streams.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from pipeline.home import Home
    from registry.deploy.standing import Standing


@click.command("deploy", short_help="Bring the deploy targets to the champion.")
@json_option
@click.pass_obj
def deploy_command(home: Home, as_json: bool) -> int:
    """Bring every deploy target that the settings name to the champion: load, check, flip, confirm, unload. What serves it
    already is left alone. A promotion and a rollback do this by themselves; this is for a target that was away. Exit code 1
    while a target does not serve what it should.
    """
    from pipeline.errors import NothingToDo
    from streams.cli.opening import settings_of
    from streams.deploying import deploy_pending

    found = deploy_pending(home, settings_of(home))
    if not found:
        raise NothingToDo("nothing was promoted yet, or no deploy target is on", hint="see `mailtide registry list`")
    if as_json:
        print_json([shown(one) for one in found])
    else:
        print_table(
            ("target", "mailbox", "serves", "since", "first token s", "tokens/s", "trouble"), [_row(one) for one in found]
        )
    return 1 if any(one.trouble for one in found) else 0


def shown(one: Standing) -> dict[str, Any]:
    """A standing as a JSON document."""
    return {**one.model_dump(), "adapter_id": one.adapter_id}


def _row(one: Standing) -> tuple[object, ...]:
    speed = one.speed
    return (
        one.target,
        one.mailbox,
        one.adapter_id or "nothing",
        f"{one.since:%Y-%m-%d %H:%M}" if one.since else "",
        f"{speed.first_token_seconds:.3f}" if speed else "",
        f"{speed.tokens_per_second:.1f}" if speed else "",
        one.trouble,
    )
