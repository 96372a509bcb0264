"""`tiers`: what a model is made from by quality, and why a chunk is of its tier."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import click

from pipeline.domain import TierName
from streams.cli.output import json_option, per_cent, print_json, print_table

if TYPE_CHECKING:
    from pipeline.home import Home
    from streams.inspecting.tiers import TierExample, TierReport

TOLD = ("own", "depth", "bulk", "auto", "repetition", "prose", "mix")
"""Signals, in the order of the table."""


@click.command("tiers", short_help="Show chunks by quality tier, with signals and examples.")
@click.argument("mailbox", required=False)
@click.option("--window", type=click.IntRange(0), help="Of this closed window only.")
@click.option("--tier", type=click.Choice(get_args(TierName)), help="Of this tier only.")
@click.option("--show", type=click.IntRange(0), default=0, show_default=True, help="Chunks of each tier to print.")
@json_option
@click.pass_obj
def tiers_command(home: Home, mailbox: str | None, window: int | None, tier: str | None, show: int, as_json: bool) -> None:
    """Chunks by quality tier: who wrote them, whether people answer one another, and what kind of text it is. What the
    tiers mean, and how to let fewer chunks of one be trained, is in docs/training.md."""
    from registry.named import the_mailbox
    from streams.cli.opening import opened
    from streams.inspecting.tiers import tier_report

    with opened(home) as store:
        report = tier_report(store, home, the_mailbox(store, mailbox), window=window, tier=tier, show=show)
    if as_json:
        print_json(report)
    else:
        _tell(report)


def _tell(report: TierReport) -> None:
    where = f"window {report.windows[0]}" if len(report.windows) == 1 else f"{len(report.windows)} windows"
    if not report.chunks:
        click.echo(f"{report.mailbox}: {where} without a chunk yet (a window's chunks are cut when it closes).")
        return
    print_table(
        ("tier", "chunks", "tokens", "share", "of train", "trained", "of trained"),
        [
            (
                one.tier,
                one.chunks,
                one.tokens,
                per_cent(one.share),
                per_cent(one.train_share),
                one.trained,
                per_cent(one.trained_share),
            )
            for one in report.tiers
        ],
        title=f"{report.mailbox}: {report.chunks:,} chunks of {where}, {report.tokens:,} tokens",
    )
    print_table(
        ("tier", *TOLD, "languages"),
        [
            (
                one.tier,
                *(_marks(one.signals[name], 0 if name == "depth" else 2) for name in TOLD),
                ", ".join(f"{name or 'none'} {n}" for name, n in list(one.languages.items())[:3]),
            )
            for one in report.tiers
        ],
        title="signals: median (10th to 90th percentile)",
    )
    if report.erased:
        click.echo(f"{report.erased:,} chunks have no text any more, so no tier.")
    for example in report.examples:
        _show(example)


def _marks(quantiles: dict[str, float], places: int) -> str:
    """``0.47 (0.41-0.64)``, or ``1.00`` where most are alike."""
    low, middle, high = (f"{quantiles[name]:.{places}f}" for name in ("p10", "p50", "p90"))
    return middle if low == high else f"{middle} ({low}-{high})"


def _show(example: TierExample) -> None:
    told = ", ".join(f"{name} {example.signals[name]:.2f}" for name in TOLD if name != "depth")
    click.echo(
        f"\n{example.tier.upper()}  {example.chunk_id}  window {example.window_idx}, {example.split}, "
        f"{example.n_tokens:,} tokens, frozen as {example.frozen}"
    )
    click.echo(f"  {told}, depth {example.signals['depth']:.0f}, language {example.language or 'none'}")
    for line in example.text.splitlines():
        click.echo(f"  | {line}")
