"""`study`: what a way of training does to a model, measured on mail."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streams.cli.output import json_option, print_json, print_table, progress
from streams.documents import plain

if TYPE_CHECKING:
    from streams.forgetting.study import Study


@click.group("study", short_help="Measure what a way of training does, on archives.")
def study_command() -> None:
    """What a way of training does to a model, measured on mail."""


@study_command.command("forgetting", short_help="Measure what rehearsal keeps from being forgotten.")
@click.argument("archives", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True), metavar="ARCHIVE...")
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("forgetting-study"),
    show_default=True,
    help="Folder of the study; what it holds is not trained again.",
)
@click.option("--windows", type=click.IntRange(1), default=7, show_default=True, help="Windows after window 0.")
@click.option("--mails", type=click.IntRange(1), default=300, show_default=True, help="Mails of a window.")
@click.option(
    "--bootstrap",
    type=click.IntRange(1),
    default=1500,
    show_default=True,
    help="Mails of window 0, from which the base is made.",
)
@click.option(
    "--train-chunks",
    type=click.IntRange(1),
    default=40,
    show_default=True,
    help="Chunks to train on per window, drawn by hash; of window 0 three times as many.",
)
@click.option("--val-chunks", type=click.IntRange(1), default=24, show_default=True, help="Chunks to measure per window.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="How often all is repeated.")
@click.option(
    "--arm",
    "named",
    multiple=True,
    metavar="ARM",
    help="Only these: none, full, or uniform, stratified, sender, window, forgetting, mixed, silent, as in "
    "uniform@20%, uniform@20%/in-place or uniform@20%/late; once per arm.",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting of the study.")
@click.option(
    "--into",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write table and pictures into this Markdown page too.",
)
@click.option("--name", default="study", show_default=True, help="With --into: the study's name there.")
@json_option
def forgetting_command(
    archives: tuple[Path, ...],
    keep: Path,
    windows: int,
    mails: int,
    bootstrap: int,
    train_chunks: int,
    val_chunks: int,
    seeds: int,
    named: tuple[str, ...],
    overrides: tuple[str, ...],
    into: Path | None,
    name: str,
    as_json: bool,
) -> None:
    """Train a small model window by window on ARCHIVE... in that order, once for each way of rehearsing, and tell what each
    forgot of earlier windows and learned of new ones.

    Archives share the windows; one named again goes on where it stopped, so that A B A is mail of one kind, of another, and
    of the first again. Stopped and started again, the study goes on. Table and pictures are left in the folder.
    """
    from pipeline.config.configuration import load
    from retrain.offline import TIED, keep_offline
    from streams.forgetting.study import SMALL, run_study
    from streams.forgetting.windows import Cut
    from streams.runs.runner import require_training
    from streams.whatif.picture import require_drawing

    require_training()
    require_drawing(Path("matrix.png"))
    keep_offline()
    warnings.filterwarnings("ignore", message=TIED)
    from retrain.forgetting.arms import ARMS, parse_arm
    from retrain.forgetting.material import Sizes

    arms = tuple(parse_arm(text) for text in named) or ARMS
    settings = load(None, environment=os.environ, overrides=(*SMALL, *overrides))
    sizes = Sizes(train=train_chunks, first=3 * train_chunks, val=val_chunks)
    with progress("study", quiet=as_json) as bar:
        study = run_study(
            keep.absolute(), archives, Cut(bootstrap, mails, windows), sizes, seeds, arms, settings, bar.update
        )
    pictures = _draw(study, keep, into, name)
    _tell(study, name, keep, into, pictures, as_json)


def _draw(study: Study, keep: Path, into: Path | None, name: str) -> list[tuple[str, str]]:
    """Draws into the study's folder, and beside the page; returns captions and paths as the page names them. There is
    nothing to draw where no arm went from window to window, as `full` alone does not."""
    from streams.forgetting.pictures import draw_curve, draw_heat_map

    if all(trained.figures.forgetting is None for trained in study.arms):
        return []
    folders = [keep] if into is None else [keep, into.absolute().parent]
    for folder in folders:
        draw_heat_map(study, folder / f"forgetting-{name}-matrix.png")
        draw_curve(study, folder / f"forgetting-{name}-curve.png")
    return [
        ("How far each window stood above its best loss, after each training", f"forgetting-{name}-matrix.png"),
        ("Mean rise of earlier windows after each training", f"forgetting-{name}-curve.png"),
    ]


def _tell(study: Study, name: str, keep: Path, into: Path | None, pictures: list[tuple[str, str]], as_json: bool) -> None:
    from streams.forgetting.report import APART, COLUMNS, apart, cells, markdown, rows, write_part

    if into is not None:
        write_part(into, name, markdown(study, pictures))
    if as_json:
        document: dict[str, Any] = {
            "archives": study.archives,
            "windows": study.windows,
            "seeds": study.seeds,
            "base": study.base,
            "arms": plain(rows(study)),
        }
        print_json(document)
        return
    told = rows(study)
    print_table(COLUMNS, [cells(row) for row in told], title="nats per token, 95 % intervals over threads")
    print_table(APART, [apart(row) for row in told], title="loss beside that of uniform of the same share")
    if not any(each.arm.order == "uniform" for each in study.arms):
        click.echo("Nothing stands beside uniform, as no such arm was asked for: add --arm uniform@20%.")
    if pictures:
        click.echo(f"Drawn: {keep}/forgetting-{name}-matrix.png, {keep}/forgetting-{name}-curve.png")
    if into is not None:
        click.echo(f"Written: {into}")
