"""``mailtide demo``: the whole path on a generated mailbox, printing what happened and nothing else."""

from __future__ import annotations

import hashlib
import shutil
import time
from itertools import islice
from pathlib import Path

import click

from pipeline.arrival.people import PeopleKey
from pipeline.config.configuration import load, rows
from pipeline.config.settings import Settings
from pipeline.errors import UsageError
from pipeline.home import Home
from registry.answer import answer
from streams.cli.answers import tell_answer
from streams.cli.output import print_table, progress
from streams.cli.plans import run_table, tell_run
from streams.cli.suggesting import program
from streams.demo.mailbox import DemoMailbox, write_mailbox
from streams.homes import make_home
from streams.owning.batch import Taken
from streams.owning.ingest import import_archives
from streams.owning.stores import opener
from streams.runs.claims import Windows
from streams.runs.runner import require_training
from streams.runs.sessions import retrain

MAILBOX = "demo"
ARCHIVE = "demo.mbox"
CONFIG = Path(__file__).resolve().parents[2] / "configs" / "demo.yaml"

REASONS = {
    "seed": "a run of the demo is repeatable",
    "mailboxes": "whose mail it is; the header clock replays eighteen months as if live",
    "split.train": "a small mailbox needs more held-out threads for the gate to see anything",
    "split.val": "the same",
    "window.bootstrap": "the base needs some mail to learn a language from",
    "window.count": "six windows of two or three months each",
    "window.age": "windows close by count alone, so that they are alike",
    "chunk.max_tokens": "short examples train faster on two cores",
    "model.builtin.base_tokens": "a base in a third of the time, and a weaker one",
    "train.epochs": "one pass is enough to show learning, in half the time",
    "train.batch_tokens": "more steps on little mail",
    "eval.max_replies": "real replies are put to every adapter; a few show how, in seconds",
    "eval.generate": "the same of replies written, by a model whose prose says nothing yet",
    "eval.generate_tokens": "the same",
    "gate.max_loss": "a few dozen val threads give wide bounds, and a tiny model forgets more than a large one",
    "gate.max_drift": "the same",
}
"""Why the demo's settings differ from the defaults, by name."""


def tour(root: Path, seed: int, windows: int | None = None) -> None:
    """Generates a mailbox, imports it as if live, retrains once per closed window (the first ``windows`` of them), and asks
    a question."""
    begin = time.monotonic()
    require_training()
    home = Home(root)
    settings = load(CONFIG, environment={}, overrides=[f"seed={seed}"])
    _clear(home)
    # Drawn from the seed, so that the demo is the same each time: nobody in it has to be kept secret.
    make_home(home, settings, PeopleKey(hashlib.sha256(f"demo {seed}".encode()).digest()))

    mailbox = write_mailbox(root / ARCHIVE, seed=seed)
    _introduce(mailbox, settings)
    closed = _import(home, settings, root / ARCHIVE)

    click.echo("\nOne retrain per closed window; losses are nats per token on held-out (val) mail, lower is better.\n")
    reports = []
    with progress("retrain") as bar:
        for report in islice(retrain(home, settings, MAILBOX, Windows(each=True), bar.update), windows):
            bar.close()
            tell_run(report, settings.cost.currency)
            reports.append(report)
    print_table(*run_table(reports))
    if windows is not None and windows < closed:
        click.echo(f"Stopped after {windows} of {closed} windows, as asked.\n")

    fact = mailbox.facts[len(mailbox.facts) // 2]
    click.echo(f"Question: {fact.question}\n")
    with opener(home, settings)() as store:
        tell_answer(answer(store, home, MAILBOX, fact.question))
    _farewell(home, fact.question, time.monotonic() - begin)


def differences(settings: Settings) -> list[tuple[str, str, str, str]]:
    """Each setting that is not the default: name, default, value here, and why."""
    defaults = {name: default for name, default, _ in rows()}
    return [
        (name, defaults[name], value, REASONS[name])
        for name, value, _ in rows(settings)
        if value != defaults[name] and name != "mailboxes"
    ]


def _clear(home: Home) -> None:
    """Removes what a former demo left; anything else in the way is left alone."""
    if not home.root.exists() or not any(home.root.iterdir()):
        return
    if not (home.root / ARCHIVE).exists():
        raise UsageError(f"{home.root} is no demo's home", hint="name another folder with --keep")
    shutil.rmtree(home.root)


def _introduce(mailbox: DemoMailbox, settings: Settings) -> None:
    click.echo(
        f"Generated {mailbox.mails:,} mails of {len(mailbox.phases)} phases, "
        f"{mailbox.phases[0].starts:%B %Y} to {mailbox.phases[-1].ends:%B %Y}: {mailbox.threads:,} threads, "
        f"{mailbox.bulk} bulk, {mailbox.automatic} automatic, {mailbox.broken} broken, {mailbox.duplicates} sent twice."
    )
    click.echo("Everybody in it is fictional.\n\nWhere this demo's settings differ from the defaults:")
    print_table(("setting", "default", "here", "why"), differences(settings))


def _import(home: Home, settings: Settings, archive: Path) -> int:
    """How many windows closed."""
    with opener(home, settings)() as store, progress("import") as bar:

        def on_progress(done: int, total: int, taken: Taken) -> None:
            bar.update(done, total, f"{taken.read:,} mails")

        summary = import_archives(store, home, settings, [archive], mailbox=MAILBOX, clock=None, on_progress=on_progress)
    click.echo(
        f"Imported as if live: {summary.new:,} new, {summary.duplicates} duplicates, {summary.quarantined} quarantined, "
        f"{len(summary.windows_closed)} windows closed, in {summary.seconds:.1f} s."
    )
    return len(summary.windows_closed)


def _farewell(home: Home, question: str, seconds: float) -> None:
    typed = program()
    folder = home.root.relative_to(Path.cwd()) if home.root.is_relative_to(Path.cwd()) else home.root
    click.echo(
        f"""
Done in {seconds:.0f} s. Everything is in {folder}. Look around:

  {typed} --home {folder} status
  {typed} --home {folder} registry list
  {typed} --home {folder} registry lineage
  {typed} --home {folder} ask "{question}"
  {typed} --home {folder} sql "SELECT split, count(*) FROM messages GROUP BY split"

And on your own mail, in a home of your own:

  {typed} init
  {typed} import ~/archive.mbox
  {typed} plan
  {typed} retrain --confirm
  {typed} ask "..."
"""
    )
