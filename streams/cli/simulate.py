"""The command that replays mail: simulate."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streams.cli.output import json_option, per_cent, print_json, print_table, progress
from streams.documents import plain

if TYPE_CHECKING:
    from pipeline.home import Home
    from streams.whatif.comparison import Comparison, Outcome


@click.command("simulate", short_help="Replay an archive as if live, or policies over stored mail.")
@click.argument("archive", required=False, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--speed",
    type=click.FloatRange(min=0.0),
    default=0.0,
    show_default=True,
    help="How many times as fast as the archive's Date headers; 0: as fast as it goes.",
)
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("simulation-home"),
    show_default=True,
    help="Where the simulation's home is made; it must not be there yet.",
)
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="Settings of the simulation (YAML).")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting of the simulation.")
@click.option(
    "--what-if",
    "written",
    multiple=True,
    metavar="POLICY",
    help='Instead: KEY=VALUE words that make one policy, e.g. "window.count=200 replay.ratio=1:8"; once per policy.',
)
@click.option("--mailbox", help="With --what-if: whose mail to replay.  [default: the only one]")
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="With --what-if: draw the policies (png, svg or pdf).",
)
@json_option
@click.pass_obj
def simulate_command(
    home: Home,
    archive: Path | None,
    speed: float,
    keep: Path,
    config: Path | None,
    overrides: tuple[str, ...],
    written: tuple[str, ...],
    mailbox: str | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Replay ARCHIVE as if live by its Date headers, through a daemon of its own, retrains included, and tell what became
    of each window.

    With --what-if, replay the stored mail under other policies of windows and rehearsal instead: how many windows and
    steps, how much is rehearsed, how long it takes. Nothing is trained and nothing is changed then; the first row is the
    settings as they are.
    """
    from pipeline.errors import UsageError

    if (archive is None) == (not written):
        raise UsageError("name either an ARCHIVE or a --what-if", hint="see `mailtide simulate --help`")
    if archive is not None:
        _replay_archive(archive, speed, keep.absolute(), config, overrides, as_json)
    else:
        _compare(home, written, mailbox, plot, as_json)


def _replay_archive(
    archive: Path, speed: float, keep: Path, config: Path | None, overrides: tuple[str, ...], as_json: bool
) -> None:
    from pipeline.arrival.people import PeopleKey
    from pipeline.config.configuration import load
    from pipeline.home import Home
    from streams.daemon.wording import training_line
    from streams.homes import make_home
    from streams.runs.runner import require_training
    from streams.simulation import Progress, require_new, simulate, simulated

    home = Home(keep)
    require_training()
    require_new(home)
    settings = simulated(load(config, environment=os.environ, overrides=overrides), home)
    make_home(home, settings, PeopleKey.draw())
    with progress("simulate", quiet=as_json) as bar:

        def on_progress(now: Progress) -> None:
            at = f"{now.at:%Y-%m-%d}, " if now.at else ""
            bar.update(now.share, 1, f"{at}{now.delivered:,} mails; {training_line(now.state)}")

        windows = simulate(home, settings, archive, speed, on_progress)
    if as_json:
        print_json({"home": home.root, "windows": windows})
        return
    columns = ("window", "opened", "closed", "by", "mails", "chunks", "run", "verdict")
    rows = [
        (w.window_idx, w.opened_at, w.closed_at, w.reason, w.n_messages, w.n_chunks, w.run_id, w.status) for w in windows
    ]
    print_table(columns, rows)
    click.echo(f"Look around: mailtide --home {home.root} registry list")


def _compare(home: Home, written: tuple[str, ...], mailbox: str | None, plot: Path | None, as_json: bool) -> None:
    from registry.named import the_mailbox
    from streams.cli.opening import opened, settings_of
    from streams.whatif.comparison import compare
    from streams.whatif.policies import read_policies

    if plot is not None:
        from streams.whatif.picture import require_drawing

        require_drawing(plot)
    policies = read_policies(settings_of(home), written, lambda overrides: settings_of(home, overrides))
    with progress("simulate", quiet=as_json) as bar, opened(home) as store:
        found = compare(store, home, the_mailbox(store, mailbox), policies, lambda done, text: bar.update(done, 1, text))
    if plot is not None:
        from streams.whatif.picture import draw

        draw(found, plot)
    if as_json:
        print_json(_document(found))
    else:
        _tell(found)
        if plot is not None:
            click.echo(f"Drawn: {plot}")


def _document(found: Comparison) -> dict[str, Any]:
    """The comparison, each outcome with its ratios to the first."""
    document: dict[str, Any] = plain(found)
    for outcome, shown in zip(found.outcomes, document["outcomes"], strict=True):
        shown["ratios"] = _ratios(outcome, found.outcomes[0])
    return document


def _ratios(outcome: Outcome, reference: Outcome) -> dict[str, float | None]:
    """What the policy takes for each unit that the reference takes."""
    return {
        "runs": _ratio(outcome.runs, reference.runs),
        "steps": _ratio(outcome.steps, reference.steps),
        "tokens": _ratio(outcome.tokens, reference.tokens),
        "seconds": _ratio(outcome.seconds, reference.seconds),
    }


def _ratio(value: float | None, reference: float | None) -> float | None:
    return value / reference if value is not None and reference else None


def _tell(found: Comparison) -> None:
    from streams.cli.plans import duration

    reference = found.outcomes[0]
    columns = ["policy", "windows", "mails each", "days each", "runs", "steps", "x now", "rehearsed", "reached", "few val"]
    columns += ["time", "x now"] if found.pace else []
    priced = any(outcome.cost is not None for outcome in found.outcomes)
    columns += ["cost"] if priced else []
    rows = []
    for outcome in found.outcomes:
        row: list[Any] = [
            outcome.policy,
            outcome.windows,
            _rounded(outcome.mails_each, 0),
            _rounded(outcome.days_each, 1),
            outcome.runs,
            outcome.steps,
            _times(outcome.steps, reference.steps),
            per_cent(outcome.rehearsal_share),
            "" if outcome.reached is None else per_cent(outcome.reached, 0),
            outcome.thin,
        ]
        if found.pace:
            row += [duration(outcome.seconds or 0.0), _times(outcome.seconds, reference.seconds)]
        if priced:
            row.append("" if outcome.cost is None else f"{outcome.cost:,.2f} {found.currency}")
        rows.append(row)
    print_table(columns, rows, title=f"{found.mailbox}: {found.mails:,} mails, replayed; nothing was trained")
    click.echo("As if every closing asked for a run at once and every run were promoted, from the first window on.")
    click.echo("rehearsed: share of the tokens. reached: earlier chunks rehearsed at least once by the last run.")
    click.echo("few val: windows with too few held-out threads for the gate to decide on their own.")
    if found.pace is None:
        click.echo("Time: not known before the first run on this base.")
    else:
        pace = found.pace
        click.echo(
            f"Time: at {pace.tokens_per_second:,.0f} tokens/s and {pace.seconds_per_run:.1f} s per run beside, "
            f"as the newest {f'{pace.runs} runs' if pace.runs != 1 else 'run'} took here; making the base not included."
        )
    if not found.as_stored:
        click.echo("The store's own windows differ from the first row: they were closed under other settings.")


def _rounded(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _times(value: float | None, reference: float | None) -> str:
    ratio = _ratio(value, reference)
    return "" if ratio is None else f"{ratio:.2f}"
