"""`qrels`: the mailbox as a retrieval benchmark, and any such benchmark put to the search engines here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streams.cli.output import json_option, print_json, print_table, progress
from streams.cli.suggesting import suggest

if TYPE_CHECKING:
    from pipeline.home import Home
    from pipeline.intervals import Interval
    from retrain.search.trials import Trial


@click.group("qrels", short_help="Write the mailbox as a search benchmark, and measure one.")
def qrels_command() -> None:
    """Questions with known answers, without anybody's annotation: a reply asks for the mail that it answers."""


@qrels_command.command("export", short_help="Write the mailbox as a BEIR folder with TREC qrels.")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--mailbox", help="The mailbox, where there are several.")
@click.option("--split", "splits", type=click.Choice(["val", "test"]), multiple=True, help="Only this split.")
@click.option(
    "--query",
    "asked",
    type=click.Choice(["both", "words", "subject"]),
    default="both",
    show_default=True,
    help="What of a reply is asked with: its subject, its first own lines, or both.",
)
@click.option("--queries", "most", type=click.IntRange(1), help="Queries a split at most.  [default: all]")
@json_option
@click.pass_obj
def export_command(
    home: Home,
    folder: Path,
    mailbox: str | None,
    splits: tuple[str, ...],
    asked: str,
    most: int | None,
    as_json: bool,
) -> None:
    """Write the mailbox to FOLDER for other tools. It then holds the text of your mail, credentials masked."""
    from pipeline.domain import Split
    from registry.named import the_mailbox
    from retrain.search.beir import write_collection
    from retrain.search.gold import Asked
    from streams.cli.opening import opened, settings_of
    from streams.gold import HELD_OUT, collect

    settings = settings_of(home)
    wanted = tuple(map(Split, splits)) or HELD_OUT
    with opened(home) as store:
        name = the_mailbox(store, mailbox)
        collection = collect(store, settings, name, splits=wanted, asked=Asked(asked), most=most)
    write_collection(folder.absolute(), collection)
    counts = {split: len(queries) for split, queries in collection.queries.items()}
    if as_json:
        print_json(
            {"folder": folder.absolute(), "mailbox": name, "documents": len(collection.documents), "queries": counts}
        )
        return
    told = ", ".join(f"{count:,} in {split}" for split, count in counts.items())
    click.echo(f"{len(collection.documents):,} mails and their queries ({told}) to {folder}")
    suggest(f"Next: mailtide qrels evaluate {folder}")


@qrels_command.command("evaluate", short_help="Measure the search engines on a BEIR folder.")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--split", "splits", multiple=True, help="Only this split; may be repeated.  [default: all]")
@click.option(
    "--engine",
    "engines",
    type=click.Choice(["bm25", "vectors", "hybrid", "weaviate"]),
    multiple=True,
    help="Only this engine; may be repeated.  [default: all that need no server and whose model is there]",
)
@click.option("--relevant", type=click.IntRange(1), help="Grade that counts as found.  [default: the folder's, else 1]")
@click.option("--runs", is_flag=True, help="Keep what was found as TREC run files in FOLDER.")
@json_option
@click.pass_obj
def evaluate_command(
    home: Home,
    folder: Path,
    splits: tuple[str, ...],
    engines: tuple[str, ...],
    relevant: int | None,
    runs: bool,
    as_json: bool,
) -> None:
    """Measure the search engines on FOLDER, in BEIR's layout: an export of a mailbox, or any other collection."""
    from retrain.search.beir import read_collection, write_run
    from retrain.search.embedder import load_embedder, model_there
    from retrain.search.trials import BM25, ENGINES, compare
    from streams.cli.opening import settings_of
    from streams.indexing import remote_of

    settings = settings_of(home).index
    model = settings.model
    folder = folder.absolute()
    collection = read_collection(folder, splits or None)
    named = engines or (ENGINES if model_there(model) else (BM25,))
    with progress("embedding", quiet=as_json) as bar:
        trials = compare(
            collection,
            tuple(dict.fromkeys(named)),
            relevant=relevant or collection.relevant,
            embedder=lambda: load_embedder(model),
            vectors=folder / "vectors",
            server=lambda: remote_of(home, settings.weaviate).address,
            told=lambda read: bar.update(read, len(collection.documents), f"{read:,} texts"),
        )
    if runs:
        for trial in trials:
            write_run(folder, trial.split, trial.engine, trial.queries, trial.found)
    if as_json:
        print_json({"folder": folder, "documents": len(collection.documents), "results": [_figures(one) for one in trials]})
        return
    _tell(trials)
    if not engines and len(named) == 1:
        from pipeline.installing import install_command

        click.echo(f"Only BM25: the embedding model is not installed ({install_command('search')}).")


def _figures(trial: Trial) -> dict[str, Any]:
    from retrain.search.rankings import FIGURES

    figures = {}
    for figure in FIGURES:
        interval = trial.ranked.interval(figure)
        if interval is not None:
            low, high = interval.bounds
            figures[figure] = {"value": interval.value, "ci_low": low, "ci_high": high, "few": interval.few}
    return {"engine": trial.engine, "split": trial.split, "queries": trial.ranked.queries, "figures": figures}


def _tell(trials: list[Trial]) -> None:
    from retrain.search.rankings import FIGURES

    print_table(
        ("split", "engine", "queries", *FIGURES),
        [
            (one.split, one.engine, one.ranked.queries, *(_shown(one.ranked.interval(figure)) for figure in FIGURES))
            for one in trials
        ],
    )
    differences = [
        (one.split, f"{one.engine} less bm25", *(_shown(one.ranked.difference(base.ranked, figure)) for figure in FIGURES))
        for one in trials
        for base in trials
        if one.split == base.split and base.engine == "bm25" and one.engine != "bm25"
    ]
    if differences:
        print_table(("split", "paired difference", *FIGURES), differences)


def _shown(interval: Interval | None) -> str:
    """A figure with its 95 % bounds."""
    if interval is None:
        return "-"
    low, high = interval.bounds
    bounds = "unknown" if low is None or high is None else f"{low:.3f} to {high:.3f}"
    return f"{interval.value:.3f} ({bounds})"
