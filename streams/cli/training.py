"""Commands that train: plan, retrain, runs."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import click

from pipeline.ranges import ranges
from streams.cli.comparing import compare_command
from streams.cli.output import json_option, print_json, print_table, progress
from streams.cli.suggesting import suggest
from streams.documents import plain

if TYPE_CHECKING:
    from pipeline.home import Home
    from pipeline.runs.plan import Plan
    from streams.runs.claims import Windows
    from streams.runs.sessions import RunReport


class WindowRange(click.ParamType):
    """``A-B``, or ``A`` for one window."""

    name = "A-B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", value)
        if match is None:
            self.fail(f"{value!r} is not A-B, e.g. 3-5", param, ctx)
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            self.fail(f"{value!r} runs backwards", param, ctx)
        return first, last


set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting, e.g. --set train.epochs=3."
)
windows_option = click.option("--windows", "window_range", type=WindowRange(), help="Only these of the waiting windows.")


def _windows(window_range: tuple[int, int] | None, each: bool = False) -> Windows:
    from streams.runs.claims import Windows

    first, last = window_range or (None, None)
    return Windows(first, last, each)


def _to_do_it(mailbox: str | None, window_range: tuple[int, int] | None, each: bool, overrides: tuple[str, ...]) -> str:
    """The command that trains what a plan has shown; where that was for a GPU elsewhere, it is to be typed there."""
    overrides = tuple(override for override in overrides if not _elsewhere(override))
    words = ["mailtide", "retrain", *([mailbox] if mailbox else ()), "--confirm", *(("--each",) if each else ())]
    if window_range is not None:
        words += ["--windows", "-".join(map(str, dict.fromkeys(window_range)))]
    return shlex.join([*words, *(word for override in overrides for word in ("--set", override))])


def _elsewhere(override: str) -> bool:
    """Whether ``--set`` describes a GPU that is not in this machine."""
    name, _, value = override.partition("=")
    return name.strip() == "plan.gpu_gib" and value.strip() not in ("", "null")


def _show_plan(home: Home, mailbox: str | None, windows: Windows, overrides: tuple[str, ...], as_json: bool) -> Plan:
    """Tells it, and returns it."""
    from pipeline.times import utc_now
    from registry.named import the_mailbox
    from registry.spending import spending
    from streams.cli.opening import opened, settings_of
    from streams.inspecting.standing import standings
    from streams.runs.bases import read_base
    from streams.runs.claims import require_no_other
    from streams.runs.planning import plan_next

    settings = settings_of(home, overrides)
    with progress("reading the base model, once", quiet=as_json) as bar:
        read_base(home, settings, bar.update)
    with opened(home, settings) as store:
        name = the_mailbox(store, mailbox)
        require_no_other(store, name, windows)
        plan = plan_next(store, home, settings, name, windows)
        spent = spending(store, settings.cost, utc_now())
        waiting = next(one.waiting for one in standings(store) if one.mailbox == name)
    if as_json:
        print_json({**plain(plan), "spent": spent})
    else:
        from streams.cli.plans import tell_plan

        tell_plan(plan, settings, spent, waiting)
    return plan


@click.command("plan", short_help="Show what a retrain would do, and how long it takes.")
@click.argument("mailbox", required=False)
@windows_option
@set_option
@json_option
@click.pass_obj
def plan_command(
    home: Home,
    mailbox: str | None,
    window_range: tuple[int, int] | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> int:
    """Show what a retrain would train on, how many steps it would take, and how long.

    Exit code 3: there is nothing to do.
    """
    plan = _show_plan(home, mailbox, _windows(window_range), overrides, as_json)
    if plan.is_possible and not as_json:
        where = ", on the machine with that GPU" if any(map(_elsewhere, overrides)) else ""
        suggest(f"Next{where}: {_to_do_it(mailbox, window_range, False, overrides)}")
    return 3 if plan.nothing else 0


@click.command("retrain", short_help="Train on what waits, measure, decide, promote.")
@click.argument("mailbox", required=False)
@click.option("--confirm", is_flag=True, help="Do it; without this (or auto_retrain) only the plan is shown.")
@windows_option
@click.option("--each", is_flag=True, help="One run per closing, in order; what stays undecided joins the next.")
@set_option
@json_option
@click.pass_obj
def retrain_command(
    home: Home,
    mailbox: str | None,
    confirm: bool,
    window_range: tuple[int, int] | None,
    each: bool,
    overrides: tuple[str, ...],
    as_json: bool,
) -> int:
    """Train on what waits, measure, decide, and promote what deserves it.

    Exit code 0: promoted or rejected, with reasons; 3: abstained, or nothing to do.
    """
    from pipeline.errors import MailtideError
    from registry.named import the_mailbox
    from streams.cli.opening import opened, settings_of, tell_news
    from streams.cli.plans import run_table, tell_run
    from streams.runs.claims import claimed_otherwise, require_no_other
    from streams.runs.sessions import retrain

    settings = settings_of(home, overrides)
    if not (confirm or settings.auto_retrain):
        plan = _show_plan(home, mailbox, _windows(window_range, each), overrides, as_json)
        if plan.is_possible and not as_json:
            suggest(f"Nothing was trained. To do it: {_to_do_it(mailbox, window_range, each, overrides)}")
        return 3 if plan.nothing else 0
    with opened(home, settings) as store:
        name = the_mailbox(store, mailbox)
        require_no_other(store, name, _windows(window_range))
        pending = claimed_otherwise(store, settings, name)
    if pending:
        suggest(
            f"Run {pending} goes on with the settings that it was claimed with; other ones are for later runs.", err=True
        )
    reports = []
    with progress(f"retrain {name}", quiet=as_json, guess=False) as bar:
        try:
            for report in retrain(home, settings, name, _windows(window_range, each), bar.update):
                reports.append(report)
                if not as_json:
                    bar.close()
                    tell_run(report, settings.cost.currency)
                    if report.outcome == "failed":
                        again = _to_do_it(mailbox, window_range, False, overrides)
                        suggest(f"    To try again, once the cause is mended: {again}")
                tell_news(home, settings)
        except MailtideError:
            tell_news(home, settings)
            raise
    if as_json:
        print_json(reports)
    else:
        if len(reports) > 1:
            print_table(*run_table(reports))
        _suggest_after(reports[-1], mailbox)
    return 3 if reports[-1].outcome == "abstained" else 1 if reports[-1].outcome == "failed" else 0


def _suggest_after(report: RunReport, mailbox: str | None) -> None:
    """What a verdict leads to: questions to the adapter that serves now, or why it does not."""
    if report.outcome == "promoted":
        suggest(f"Next: mailtide ask QUESTION{f' --mailbox {mailbox}' if mailbox else ''}")
    elif report.outcome in ("rejected", "abstained"):
        suggest(f"Next: mailtide registry explain {report.adapter_id}")


@click.group("runs", invoke_without_command=True, short_help="List the runs, or show one.")
@json_option
@click.pass_context
def runs_command(ctx: click.Context, as_json: bool) -> None:
    """List the runs; `runs show ID` has one's steps, metrics and receipt."""
    if ctx.invoked_subcommand is not None:
        return
    from streams.cli.opening import opened

    columns = ("run_id", "mailbox", "windows", "parent_adapter", "adapter_id", "status", "finished_at", "steps", "tokens")
    with opened(ctx.obj) as store:
        asked_at = '(SELECT q."at" FROM requests q WHERE q.run_id = runs.run_id)'
        rows = store.query(f"SELECT {', '.join(columns)} FROM runs ORDER BY {asked_at}, run_id")
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    elif rows:
        at = columns.index("windows")
        print_table(columns, [(*row[:at], ranges(row[at]), *row[at + 1 :]) for row in rows])
    else:
        suggest("No run yet: mailtide plan")


@runs_command.command("show", short_help="Show one run: data, losses, verdict and why.")
@click.argument("run_id")
@json_option
@click.pass_obj
def runs_show_command(home: Home, run_id: str, as_json: bool) -> None:
    """Show one run: what it trained on, its losses, its verdict and why."""
    from streams.cli.opening import opened, settings_of
    from streams.cli.plans import tell_run
    from streams.runs.sessions import report_of

    with opened(home) as store:
        report = report_of(store, home, run_id)
    if as_json:
        print_json(report)
    else:
        tell_run(report, settings_of(home).cost.currency, full=True)


runs_command.add_command(compare_command)
