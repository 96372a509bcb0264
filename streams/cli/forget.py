"""Erasing a message, a sender or a thread."""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING

import click

from streams.cli.output import json_option, print_json, print_table, progress
from streams.cli.suggesting import suggest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.home import Home
    from pipeline.store import Store
    from streams.erasure.asked import Asked
    from streams.erasure.plan import Plan
    from streams.erasure.receipt import ErasureReceipt


SHOWN = 5
"""Ids that are named one by one."""


@click.command("forget", short_help="Erase a message, a sender or a thread, with a receipt.")
@click.option("--message", metavar="ID", help="This message, by its key or Message-ID.")
@click.option("--sender", metavar="ADDRESS", help="All mail from this address.")
@click.option("--thread", metavar="ID", help="All mail of this thread.")
@click.option("--mailbox", help="The mailbox, where there are several.")
@click.option("--dry-run", is_flag=True, help="Only show what would be erased.")
@click.option("--confirm", is_flag=True, help="Do it without asking.")
@json_option
@click.pass_obj
def forget_command(
    home: Home,
    message: str | None,
    sender: str | None,
    thread: str | None,
    mailbox: str | None,
    dry_run: bool,
    confirm: bool,
    as_json: bool,
) -> int:
    """Erase a message, a sender or a thread for good: its words and names in mail, chunks, indexes and reports, and every
    model that learned from them. What answered is rolled back to what is clean, and a retrain is asked for.
    """
    from streams.cli.opening import opened, settings_of, tell_news
    from streams.erasure.carrying import erase
    from streams.owning.stores import opener

    settings = settings_of(home)
    with opened(home) as store:
        asked = _asked(store, message, sender, thread, mailbox)
        if dry_run or not confirm:
            _show(store, home, asked, as_json=as_json, only=dry_run)
    if dry_run:
        return 0
    if not confirm:
        _require_yes(as_json)
    with progress("forget", quiet=as_json) as bar:
        receipt = erase(home, settings, opener(home, settings), asked, getpass.getuser(), bar.update)
    _deploy(home)
    tell_news(home, settings)
    _tell_receipt(home, receipt, as_json=as_json)
    return 0


def _asked(store: Store, message: str | None, sender: str | None, thread: str | None, mailbox: str | None) -> Asked:
    from pipeline.errors import UsageError
    from registry.named import the_mailbox
    from streams.erasure.asked import Asked, Kind

    named = [(kind, value) for kind, value in zip(Kind, (message, sender, thread), strict=True) if value is not None]
    if len(named) != 1 or not named[0][1].strip():
        raise UsageError("nothing says what to erase", hint="name one of --message ID, --sender ADDRESS, --thread ID")
    return Asked(the_mailbox(store, mailbox), *named[0])


def _show(store: Store, home: Home, asked: Asked, *, as_json: bool, only: bool) -> None:
    """The plan, as a table, or as the one JSON document where that is all that is asked for."""
    from pipeline.errors import NothingToDo
    from pipeline.times import utc_now
    from streams.erasure.planning import plan_erasure, unfinished

    waiting = [plan.erasure_id for plan in unfinished(store)]
    if waiting:
        click.echo(f"{', '.join(waiting)} is not finished yet: --confirm finishes it first", err=True)
    try:
        plan = plan_erasure(store, home, asked, utc_now())
    except NothingToDo:
        if waiting and not only:
            return
        raise
    if not as_json:
        print_table(("what goes", "number", "which"), _rows(plan))
        click.echo(_who_answers(plan))
    elif only:
        print_json(plan.model_dump(mode="json"))


def _require_yes(as_json: bool) -> None:
    from pipeline.errors import UsageError

    if as_json or not sys.stdin.isatty():
        raise UsageError("nothing was erased: it cannot be undone", hint="say --confirm to do it, --dry-run to look")
    click.confirm("Erase this for good?", abort=True, err=True)


def _rows(plan: Plan) -> list[tuple[str, int, str]]:
    windows = ", ".join(map(str, plan.chunks))
    named = [
        ("mails", len(plan.messages), _some(plan.messages)),
        ("chunks", len(plan.chunk_ids), f"of window {windows}" if windows else ""),
        ("dead letters", len(plan.dead_letters), _some(plan.dead_letters)),
        ("claim checks", len(plan.claims), ""),
        ("corrected replies", len(plan.feedback), _some(plan.feedback)),
        ("quotes, in other mails", len(plan.quoting), _some(plan.quoting)),
        ("run under way", 1 if plan.withdrawn else 0, plan.withdrawn or ""),
        ("runs that trained on it", len(plan.runs), _some(plan.runs)),
        ("adapters", len(plan.adapters), _some(plan.adapters)),
        ("built-in bases", len(plan.bases), _some(plan.bases)),
        ("reports", len(plan.reports), "written anew when asked for" if plan.reports else ""),
    ]
    return [row for row in named if row[1] or row[0] in ("mails", "chunks", "adapters")]


def _who_answers(plan: Plan) -> str:
    if plan.successor is not None:
        same = plan.successor == plan.champion
        answers = f"{plan.successor} answers{' as before' if same else ' then'}."
    elif plan.bases:
        answers = "No model answers then, only mail that is found, until the base is made anew by the next run."
    else:
        answers = f"The bare base answers{' then' if plan.champion else ', as before'}."
    repeating = len(plan.repeating)
    if not repeating:
        return answers
    return f"{answers}\n{repeating} mails of others repeat some of it in their own words, and stay: {_some(plan.repeating)}"


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _deploy(home: Home) -> None:
    """Brings the deploy targets to who answers now."""
    from streams.cli.opening import settings_of
    from streams.deploying import deploy_pending, troubles

    for trouble in troubles(deploy_pending(home, settings_of(home))):
        suggest(f"{trouble}; it is tried again by the daemon, or by `mailtide deploy`", err=True)


def _tell_receipt(home: Home, receipt: ErasureReceipt, *, as_json: bool) -> None:
    from streams.erasure.receipt import path_of

    plan, path = receipt.plan, path_of(home, receipt.plan.erasure_id)
    if as_json:
        print_json({"path": path, **receipt.model_dump(mode="json")})
        return
    print_table(("what is gone", "number", "which"), _rows(plan))
    click.echo(_who_answers(plan))
    click.echo(f"Retrain: {receipt.retrain}.")
    for place in receipt.elsewhere:
        click.echo(f"Not erased: {place}.")
    click.echo(f"Receipt: {path}")
