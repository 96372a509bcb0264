"""How an answer is told: what was written, word for word, and the mails that it stands in."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import click

from streams.cli.output import print_table
from streams.cli.suggesting import suggest

if TYPE_CHECKING:
    from registry.answer import Answer
    from streams.answering import Written

QUOTED = "quoted from the best matching mail; the built-in model's own prose is not worth reading (--generate shows it)"


def tell_answer(answer: Answer, *, written: Written | None = None, by: str = "") -> None:
    """Prints what the model wrote, where that is more than blanks, else the best passage as the quotation that it is; then
    the mails, and which of them the model was not given."""
    if not answer.citations:
        click.echo("No mail fits the question.")
        return
    if written is not None and written.text and written.text.strip():
        few = written.read < len(answer.citations)
        source = f"the first {written.read} of the mails below" if few else "the mails below"
        click.echo(f"{written.text.strip()}\n\n(written by {by} from {source})")
    else:
        click.echo(textwrap.indent(answer.passage.strip(), "  > "))
        wrote = "was not asked" if written is not None and written.text is None else "wrote nothing"
        click.echo(f"\n({QUOTED if written is None else f'quoted from the best matching mail; {by} {wrote}'})")
    print_table(
        ("", "date", "from", "subject", "message id"),
        [
            (f"[{number}]", mail.date, mail.sender, mail.subject, mail.message_id)
            for number, mail in enumerate(answer.citations, 1)
        ],
    )
    if written is not None and written.notice:
        click.echo(f"{written.notice[0].upper()}{written.notice[1:]}.", err=True)
    if answer.unknown:
        suggest(f"{answer.unknown:,} new mails were searched by words alone: run `mailtide index rebuild`.")
