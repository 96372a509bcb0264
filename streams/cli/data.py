"""`data`: what the mail looks like that a model is made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from streams.cli.output import json_option, print_json, print_table
from streams.cli.suggesting import suggest

if TYPE_CHECKING:
    from pipeline.home import Home
    from streams.inspecting.data_report import DataReport

COLUMNS = {
    "mails": "mails",
    "train": "train",
    "val": "val",
    "test": "test",
    "quarantine": "quar.",
    "threads": "threads",
    "new_threads": "new",
    "senders": "senders",
    "new_senders": "new",
    "tokens": "tokens",
    "median_tokens": "med.",
    "p95_tokens": "p95",
    "chunks": "chunks",
    "repeats": "rep.",
    "excluded": "excl.",
}
"""Figures of the table over all windows, and what they are called there."""


@click.group("data", short_help="Report what the mail looks like, window by window.")
def data_command() -> None:
    """What the mail looks like that a model is made from."""


@data_command.command("report", short_help="Show mails, threads, splits and lengths per window.")
@click.option("--mailbox", help="The mailbox, where there are several.")
@click.option("--last", type=click.IntRange(1), default=12, show_default=True, help="Windows to list, the newest.")
@json_option
@click.pass_obj
def report_command(home: Home, mailbox: str | None, last: int, as_json: bool) -> None:
    """The mail of every window and of all, and what changed from one window to the next; with --json, of all windows."""
    from registry.named import the_mailbox
    from streams.cli.opening import opened
    from streams.inspecting.data_report import data_report

    with opened(home) as store:
        report = data_report(store, the_mailbox(store, mailbox))
    if as_json:
        print_json(report)
    else:
        _tell(report, last)


def _tell(report: DataReport, last: int) -> None:
    shown = report.windows[-last:]
    lines = [(window.window_idx, *(getattr(window.figures, name) for name in COLUMNS)) for window in shown]
    print_table(
        ("window", *COLUMNS.values()),
        [*lines, ("ever", *(getattr(report.ever, name) for name in COLUMNS))],
        title=f"{report.mailbox}: the newest {len(shown)} of {len(report.windows)} windows",
    )
    _tell_change(report)


def _tell_change(report: DataReport) -> None:
    """Every figure of the newest closed window beside the one before."""
    from streams.inspecting.data_report import NAMES

    closed = [window for window in report.windows if window.closed_at is not None]
    if closed:
        newest = closed[-1]
        before = closed[-2].figures if len(closed) > 1 else None
        rows = []
        for name in NAMES:
            value, change = getattr(newest.figures, name), (newest.change or {}).get(name)
            told = "" if change is None else f"{change:+,}"
            rows.append(
                (
                    name.replace("_", " "),
                    None if before is None else getattr(before, name),
                    value,
                    told,
                    getattr(report.ever, name),
                )
            )
        names = ("figure", "" if before is None else f"window {closed[-2].window_idx}", f"window {newest.window_idx}")
        print_table((*names, "change", "ever"), rows)
    if report.dead_letters:
        mails = "mail" if report.dead_letters == 1 else "mails"
        suggest(f"{report.dead_letters:,} {mails} could not be read at all (`mailtide deadletters list`).")
