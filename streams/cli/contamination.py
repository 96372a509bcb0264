"""`contamination`: held-out mail that is trained on in another place, and what that would do to the figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from streams.cli.output import json_option, per_cent, print_json, print_table

if TYPE_CHECKING:
    from pipeline.home import Home
    from streams.inspecting.contamination import Contamination


@click.command("contamination", short_help="List held-out chunks that are near copies of others.")
@click.option("--mailbox", help="The mailbox, where there are several.")
@click.option("--last", type=click.IntRange(1), default=20, show_default=True, help="Chunks to list, the newest.")
@json_option
@click.pass_obj
def contamination_command(home: Home, mailbox: str | None, last: int, as_json: bool) -> None:
    """The val and test chunks that left evaluation as near copies of what another split holds, and every adapter's loss
    with and without them."""
    from registry.named import the_mailbox
    from streams.cli.opening import opened
    from streams.inspecting.contamination import contamination

    with opened(home) as store:
        found = contamination(store, the_mailbox(store, mailbox))
    if as_json:
        print_json(found)
    else:
        _tell(found, last)


def _tell(found: Contamination, last: int) -> None:
    share = len(found.copies) / found.held_out if found.held_out else 0.0
    click.echo(
        f"{found.mailbox}: {len(found.copies):,} of {found.held_out:,} held-out chunks ({per_cent(share)}) are near copies "
        "of another split's, and left out of evaluation."
    )
    if found.copies:
        rows = [
            (copy.chunk_id, copy.split, copy.window_idx, copy.since_window, copy.reason) for copy in found.copies[-last:]
        ]
        print_table(("chunk", "split", "window", "since", "why"), rows, title=f"the newest {len(rows)}")
    if found.effects:
        print_table(
            ("adapter", "checkpoint", "split", "chunks", "copies", "without", "with", "copies alone"),
            [
                (
                    effect.adapter_id,
                    effect.checkpoint or "-",
                    effect.split,
                    effect.n_chunks,
                    effect.n_copies,
                    f"{effect.without:.4f}",
                    f"{effect.with_copies:.4f}",
                    f"{effect.copies_alone:.4f}",
                )
                for effect in found.effects
            ],
            title="nats per token without and with them",
        )
    elif found.copies:
        click.echo("No run has measured them yet.")
