"""The registry's commands: which adapter serves, decisions by hand, and what is checked, copied out and taken in."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streams.cli.origins import at_command, lineage_command
from streams.cli.output import json_option, print_json, print_table, progress, say, shown
from streams.cli.suggesting import suggest
from streams.cli.verdicts import explain_command, what_if_command

if TYPE_CHECKING:
    from pipeline.home import Home
    from pipeline.store import Store
    from pipeline.store.rows import JournalRow
    from registry.reigns import Served

mailbox_option = click.option("--mailbox", help="The mailbox, where there are several.")
reason_option = click.option("--reason", required=True, help="Why; it is kept in the journal.")


@click.group("registry")
def registry_command() -> None:
    """List, promote, explain and roll back adapters."""


registry_command.add_command(explain_command)
registry_command.add_command(what_if_command)
registry_command.add_command(lineage_command)
registry_command.add_command(at_command)


@registry_command.command("list")
@json_option
@click.pass_obj
def list_command(home: Home, as_json: bool) -> None:
    """List the adapters, the champion marked by its status."""
    _table(
        home,
        as_json,
        "adapters",
        ("adapter_id", "mailbox", "status", "run_id", "created_at", "promoted_at"),
        "created_at",
        "No adapter yet: mailtide retrain --confirm",
    )


@registry_command.command("show")
@click.argument("adapter_id")
@json_option
@click.pass_obj
def show_command(home: Home, adapter_id: str, as_json: bool) -> None:
    """Show one adapter: its state, run, reigns and journal."""
    from pipeline.store.rows import JournalRow
    from registry.reigns import all_served
    from streams.cli.opening import opened

    with opened(home) as store:
        adapter = _adapter(store, adapter_id)
        rows = store.fetch(JournalRow, order="ordinal")
    own = [row for row in rows if row.adapter_id == adapter_id]
    if as_json:
        print_json({**adapter, "journal": [_entry(row) for row in own]})
        return
    for name, value in adapter.items():
        if value is not None:
            click.echo(f"{name:<13} {shown(value)}")
    for served in all_served(rows, adapter["mailbox"]):
        if served.adapter_id == adapter_id:
            click.echo(f"{'served':<13} {_when(served)}")
    click.echo()
    for row in own:
        click.echo(f"{row.ordinal:>4}  {shown(row.at)}  {row.event.replace('_', ' ')}, {row.actor}")
        say(f"      {row.reason}", hang="      ")


def _entry(row: JournalRow) -> dict[str, Any]:
    return {"ordinal": row.ordinal, "at": row.at, "event": row.event, "reason": row.reason, "actor": row.actor}


def _when(served: Served) -> str:
    """From when to when, and who came after by what."""
    from registry.reigns import how

    begun = f"from {served.since:%Y-%m-%d %H:%M:%S}"
    if served.ended_by is None:
        return f"{begun} on"
    return f"{begun} until {served.until:%Y-%m-%d %H:%M:%S}: {served.ended_by.adapter_id} {how(served.ended_by)}"


@registry_command.command("promote")
@click.argument("adapter_id")
@reason_option
@click.pass_obj
def promote_command(home: Home, adapter_id: str, reason: str) -> None:
    """Make ADAPTER_ID champion by hand, whatever its verdict."""
    from pipeline.times import utc_now
    from registry import byhand
    from streams.cli.opening import opened, settings_of

    with opened(home, settings_of(home)) as store:
        mailbox = _adapter(store, adapter_id)["mailbox"]
        byhand.promote(store, home, mailbox, adapter_id, reason, getpass.getuser(), utc_now())
    _deploy(home)
    click.echo(f"{adapter_id} is the champion of {mailbox}.")


@registry_command.command("reject")
@click.argument("adapter_id")
@reason_option
@click.pass_obj
def reject_command(home: Home, adapter_id: str, reason: str) -> None:
    """Reject candidate ADAPTER_ID by hand."""
    from pipeline.times import utc_now
    from registry import byhand
    from streams.cli.opening import opened, settings_of, tell_news

    settings = settings_of(home)
    with opened(home, settings) as store:
        mailbox = _adapter(store, adapter_id)["mailbox"]
        byhand.reject(store, mailbox, adapter_id, reason, getpass.getuser(), utc_now())
    click.echo(f"{adapter_id} is rejected.")
    tell_news(home, settings)


@registry_command.command("decide", short_help="Ask the gate again about a candidate.")
@click.argument("adapter_id")
@json_option
@click.pass_obj
def decide_command(home: Home, adapter_id: str, as_json: bool) -> int:
    """Ask the gate again about candidate ADAPTER_ID, with what came since its verdict: a spot check, feedback, another
    policy. Promoted or rejected, it is so at once; exit code 3 where the gate still abstains.
    """
    from pipeline.times import utc_now
    from registry.again import decide_again
    from registry.gate import Outcome
    from streams.cli.opening import opened, settings_of, tell_news

    settings = settings_of(home)
    with opened(home, settings) as store:
        verdict = decide_again(store, home, adapter_id, settings, utc_now(), getpass.getuser())
    if as_json:
        print_json({"adapter_id": adapter_id, "outcome": verdict.outcome, "reasons": verdict.reasons})
    else:
        click.echo(f"{verdict.outcome.upper()} {adapter_id}")
        for reason in verdict.reasons:
            click.echo(f"- {reason}")
    if verdict.outcome is Outcome.PROMOTED:
        _deploy(home)
    else:
        tell_news(home, settings)
    return 3 if verdict.outcome is Outcome.ABSTAINED else 0


@registry_command.command("rollback", short_help="Return to a former champion.")
@click.argument("adapter_id", required=False)
@mailbox_option
@reason_option
@click.pass_obj
def rollback_command(home: Home, adapter_id: str | None, mailbox: str | None, reason: str) -> None:
    """Return to former champion ADAPTER_ID, the one before the present by default; the next run continues from it."""
    from pipeline.times import utc_now
    from registry import byhand
    from registry.named import the_mailbox
    from streams.cli.opening import opened, settings_of

    settings = settings_of(home)
    with opened(home, settings) as store:
        name = _adapter(store, adapter_id)["mailbox"] if adapter_id else the_mailbox(store, mailbox)
        entry = byhand.rollback(store, home, name, adapter_id, reason, getpass.getuser(), utc_now())
    _deploy(home)
    click.echo(f"{entry.adapter_id} is the champion of {name} again.")


@registry_command.command("journal")
@json_option
@click.pass_obj
def journal_command(home: Home, as_json: bool) -> None:
    """List every event of the registry, in order."""
    columns = ("ordinal", "at", "mailbox", "adapter_id", "event", "actor", "reason")
    _table(home, as_json, "journal", columns, "ordinal", "The journal is empty.")


@registry_command.command("verify", short_help="Check artefacts of runs against receipts.")
@click.argument("adapter_or_run", metavar="[ADAPTER_ID]", required=False)
@json_option
@click.pass_obj
def verify_command(home: Home, adapter_or_run: str | None, as_json: bool) -> int:
    """Check every artefact of the run that made ADAPTER_ID (or of a run, by its id; of all decided runs and all erasures
    by default) against its receipt, the receipt's signature and the store's record: what differs is named, file by file.
    """
    from pipeline.errors import UsageError
    from pipeline.runs.requests import RunRequest
    from pipeline.store.rows import AdapterRow, RequestRow, RunResultRow
    from registry.decided import request_of
    from registry.verify import erased_folders, read_bases_anew, recorded, verify, verify_imported
    from streams.cli.opening import opened
    from streams.erasure.verifying import verify_erasures

    with opened(home) as store:
        runs = [row.run_id for row in store.fetch(RunResultRow)]
        asked = {row.run_id for row in store.fetch(RequestRow)}
        foreign = [row for row in store.fetch(AdapterRow) if row.run_id not in asked]
        if adapter_or_run:
            foreign = [row for row in foreign if adapter_or_run in (row.adapter_id, row.run_id)]
            named = "" if foreign else request_of(store, adapter_or_run).run_id
            if named and named not in runs:
                raise UsageError(f"run {named} left nothing to check", hint="see `mailtide runs`")
            runs = [named] if named else []
        kept = {run: recorded(store, run) for run in runs}
        requests = [RunRequest.model_validate_json(row.request) for row in store.fetch(RequestRow) if row.run_id in kept]
        erased = erased_folders(store)
        erasures = {} if adapter_or_run else verify_erasures(store, home)
    with progress("reading the base model anew", quiet=as_json) as bar:
        read_bases_anew(home, requests, bar.update)
    problems = {run: verify(home, run, kept[run]) for run in runs}
    problems |= {row.run_id: verify_imported(home, row, erased) for row in foreign}
    problems |= erasures
    if as_json:
        print_json(problems)
        return 1 if any(problems.values()) else 0
    for run, found in problems.items():
        click.echo(f"{run}  {'all as recorded' if not found else 'not as recorded:'}")
        for problem in found:
            click.echo(f"  {problem}")
    if not problems:
        click.echo("No run has been decided yet.")
    return 1 if any(problems.values()) else 0


@registry_command.command("export", short_help="Copy an adapter and its receipt into a folder.")
@click.argument("adapter_id")
@click.argument("folder", type=click.Path(path_type=Path))
@click.pass_obj
def export_command(home: Home, adapter_id: str, folder: Path) -> None:
    """Copy ADAPTER_ID with its receipt and SHA256SUMS into FOLDER, which must not exist, for use elsewhere. Everything is
    checked first; safetensors only. Whoever has an adapter may draw out of it what it learned from your mail.
    """
    from registry.decided import request_of
    from registry.exporting import export_adapter
    from registry.verify import recorded
    from streams.cli.opening import opened

    with opened(home) as store:
        request = request_of(store, adapter_id)
        kept = recorded(store, request.run_id)
    names = export_adapter(home, request.run_id, folder, kept)
    click.echo(f"{folder}: {', '.join(names)}. It stands on base {request.base.base_id}.")


@registry_command.command("import", short_help="Take in an adapter that another home exported.")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@mailbox_option
@click.option("--signed-by", metavar="KEY", help="Public key that the receipt must be signed with.  [default: this home's]")
@click.pass_obj
def import_command(home: Home, folder: Path, mailbox: str | None, signed_by: str | None) -> None:
    """Take in an adapter that `registry export` of another home wrote to FOLDER: every byte is held against its signed
    receipt, base and rank must be those of this mailbox. It is a candidate until somebody promotes it.
    """
    from pipeline.times import utc_now
    from registry.importing import import_adapter
    from registry.named import the_mailbox
    from streams.cli.opening import opened, settings_of
    from streams.runs.claims import import_terms

    settings = settings_of(home)
    with opened(home, settings) as store:
        terms = import_terms(store, home, settings, the_mailbox(store, mailbox))
        receipt = import_adapter(store, home, folder, terms, signed_by=signed_by, now=utc_now(), actor=getpass.getuser())
    suggest(f"{receipt.adapter_id} is a candidate of {terms.mailbox}: mailtide registry promote {receipt.adapter_id}")


def _table(home: Home, as_json: bool, view: str, columns: tuple[str, ...], order: str, empty: str) -> None:
    from streams.cli.opening import opened

    listed = ", ".join(f'"{name}"' for name in columns)
    with opened(home) as store:
        rows = store.query(f'SELECT {listed} FROM {view} ORDER BY "{order}"')
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    elif rows:
        print_table(columns, rows)
    else:
        click.echo(empty)


def _adapter(store: Store, adapter_id: str) -> dict[str, Any]:
    from registry.named import no_adapter

    columns = ("adapter_id", "mailbox", "status", "run_id", "created_at", "promoted_at", "sha256", "safety_flags")
    rows = store.query(f"SELECT {', '.join(columns)} FROM adapters WHERE adapter_id = ?", [adapter_id])
    if not rows:
        raise no_adapter(adapter_id)
    return dict(zip(columns, rows[0], strict=True))


def _deploy(home: Home) -> None:
    """Delivers the promotion to the deploy targets at once, as a run would, and tells of it."""
    from streams.cli.opening import settings_of, tell_news
    from streams.deploying import deploy_pending, troubles

    settings = settings_of(home)
    for trouble in troubles(deploy_pending(home, settings)):
        suggest(f"{trouble}; it is tried again by the daemon, or by `mailtide deploy`", err=True)
    tell_news(home, settings)
