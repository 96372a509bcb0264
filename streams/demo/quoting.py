"""What an answer shows of the mail it answers: above, below or between its own words, each program in its own style."""

from __future__ import annotations

import html
import textwrap
from datetime import timedelta

from streams.demo.letters import Letter
from streams.demo.person import Attribution, Posting

MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
NESTED = 2
"""How many mails back a quotation reaches."""


def plain_body(letter: Letter) -> str:
    """The text of a mail as its writer's program shows it: own words, quotation, signature."""
    own = _wrapped(letter.paragraphs, letter.sender.width)
    signature = f"\n\n-- \n{letter.sender.signature}" if letter.signed else ""
    parent = letter.quoted
    if parent is None:
        return f"{own}{signature}\n"
    lead = attribution(letter.sender.attribution, parent)
    if letter.sender.attribution is Attribution.ORIGINAL:
        return f"{own}{signature}\n\n{lead}\n{_wrapped(parent.paragraphs, 76)}\n"
    quoted = quote_lines(parent, NESTED)
    posting = letter.sender.posting
    if posting is Posting.ABOVE:
        return f"{own}{signature}\n\n{lead}\n{quoted}\n"
    if posting is Posting.BELOW or len(letter.paragraphs) < 2:
        return f"{lead}\n{quoted}\n\n{own}{signature}\n"
    return f"{lead}\n{_between(letter, parent)}{signature}\n"


def attribution(style: Attribution, parent: Letter) -> str:
    """The line or lines that introduce a quotation, in the time of the quoted mail's writer."""
    local = parent.sent + timedelta(minutes=parent.sender.zone)
    return style.value.format(
        weekday=WEEKDAYS[local.weekday()],
        day=local.day,
        month=MONTHS[local.month - 1],
        number=local.month,
        year=local.year,
        time=f"{local.hour:02}:{local.minute:02}",
        name=parent.sender.name,
        address=parent.sender.address,
        subject=parent.subject,
    )


def quote_lines(letter: Letter, depth: int) -> str:
    """``letter`` with ``> `` before every line, and what it quotes itself with one mark more, ``depth`` mails in all."""
    lines = [_marked(line) for line in _wrapped(letter.paragraphs, 70).splitlines()]
    if depth > 1 and letter.quoted is not None:
        inner = f"{attribution(letter.sender.attribution, letter.quoted)}\n{quote_lines(letter.quoted, depth - 1)}"
        lines = [*(_marked(line) for line in inner.splitlines()), ">", *lines]
    return "\n".join(lines)


def html_body(letter: Letter) -> str:
    """The same mail as HTML, as programs write it: paragraphs, a signature block, a blockquote."""
    parts = ["<html><head><style>p { margin: 0 0 1em }</style></head><body>"]
    parts += [f"<p>{html.escape(paragraph, quote=False)}</p>" for paragraph in letter.paragraphs]
    if letter.signed:
        lines = html.escape(letter.sender.signature, quote=False).replace("\n", "<br>")
        parts.append(f'<div class="signature">-- <br>{lines}</div>')
    if letter.quoted is not None:
        lead = html.escape(attribution(letter.sender.attribution, letter.quoted), quote=False).replace("\n", "<br>")
        quoted = "".join(f"<p>{html.escape(paragraph, quote=False)}</p>" for paragraph in letter.quoted.paragraphs)
        parts.append(f'<div class="quote">{lead}<blockquote type="cite">{quoted}</blockquote></div>')
    parts.append("</body></html>")
    return "\n".join(parts) + "\n"


def _between(letter: Letter, parent: Letter) -> str:
    """Paragraphs of the parent and of the answer in turn, as people do who answer point by point."""
    pieces: list[str] = []
    own = [_wrapped((paragraph,), letter.sender.width) for paragraph in letter.paragraphs]
    theirs = [
        "\n".join(_marked(line) for line in _wrapped((paragraph,), 70).splitlines()) for paragraph in parent.paragraphs
    ]
    for position in range(max(len(own), len(theirs))):
        if position < len(theirs) and position < len(own):
            pieces.append(theirs[position])
        if position < len(own):
            pieces.append(own[position])
    return "\n\n".join(pieces)


def _marked(line: str) -> str:
    return f">{line}" if line.startswith(">") else f"> {line}" if line else ">"


def _wrapped(paragraphs: tuple[str, ...], width: int) -> str:
    if width == 0:
        return "\n\n".join(paragraphs)
    return "\n\n".join(
        textwrap.fill(paragraph, width, break_long_words=False, break_on_hyphens=False) for paragraph in paragraphs
    )
