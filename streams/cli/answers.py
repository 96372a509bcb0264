"""How an answer is told: what was written, word for word, and the mails that it stands in."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import click

from streams.cli.output import print_table
from streams.cli.suggesting import suggest

if TYPE_CHECKING:
    from registry.answer import Answer

QUOTED = "quoted from the best matching mail; the built-in model's own prose is not worth reading (--generate shows it)"


def tell_answer(answer: Answer, *, written: str | None = None, by: str = "") -> None:
    """Prints what the model wrote, where that is more than blanks, else the best passage as the quotation that it is; then
    the mails."""
    if not answer.citations:
        click.echo("No mail fits the question.")
        return
    if written is not None and written.strip():
        click.echo(f"{written.strip()}\n\n(written by {by} from the mails below)")
    else:
        click.echo(textwrap.indent(answer.passage.strip(), "  > "))
        click.echo(f"\n({QUOTED if written is None else f'quoted from the best matching mail; {by} wrote nothing'})")
    print_table(
        ("", "date", "from", "subject", "message id"),
        [
            (f"[{number}]", mail.date, mail.sender, mail.subject, mail.message_id)
            for number, mail in enumerate(answer.citations, 1)
        ],
    )
    if answer.unknown:
        suggest(f"{answer.unknown:,} new mails were searched by words alone: run `mailtide index rebuild`.")
