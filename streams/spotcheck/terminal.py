"""A sitting in the terminal: a key a pair where there is one to press, else a line of standard input each."""

from __future__ import annotations

import sys
import unicodedata

import click

from streams.spotcheck.judging import Choice, Pairing, Sitting

KEYS: dict[str, Choice] = {"1": "1", "2": "2", "t": "tie", "0": "tie", "b": "bad", "s": "skip", "u": "back", "\x7f": "back"}
QUIT = ("q", "\x04")
ASKS = "1 or 2 is better, t tie, b both bad, s skip, u back, q stop: "


def judge(sitting: Sitting, *, err: bool) -> None:
    """Asks about one pair after the other, until all are judged or somebody stops; on standard error with ``err``."""
    while (pair := sitting.current) is not None:
        _show(pair, sitting.number, sitting.total, err=err)
        choice = _asked(err=err)
        if choice is None:
            return
        sitting.take(sitting.number, choice)


def _asked(*, err: bool) -> Choice | None:
    """What is said; None to stop."""
    while True:
        click.echo(ASKS, nl=False, err=err)
        said = _key()
        if said is None or said in QUIT:
            click.echo(err=err)
            return None
        choice = KEYS.get(said)
        click.echo(choice if choice is not None else f"{clean(said)!r} is none of these", err=err)
        if choice is not None:
            return choice


def _key() -> str | None:
    """A key, or a line where standard input is no terminal; None at its end."""
    if sys.stdin.isatty():
        return click.getchar().lower()
    line = sys.stdin.readline()
    return line.strip().lower() if line else None


def _show(pair: Pairing, number: int, total: int, *, err: bool) -> None:
    from rich.columns import Columns
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    width = None if (sys.stderr if err else sys.stdout).isatty() else 100
    console = Console(stderr=err, highlight=False, markup=False, width=width)
    line = pair.line

    def panel(title: str, lead: str, words: str, style: str, width: int | None = None) -> Panel:
        text = Text(f"{clean(lead)}\n", style="dim") if lead else Text()
        text.append(Text(clean(words) or "(nothing)", style="none"))
        return Panel(text, title=Text(title), title_align="left", border_style=style, width=width)

    half = console.width // 2 if console.width >= 80 else None
    console.print()
    console.rule(Text(f"{number} of {total}"))
    console.print(panel(clean(line.subject) or "(no subject)", line.asked_lead, line.asked, "dim"))
    console.print(panel("What was really answered", line.real_lead, line.real, "green"))
    both = [panel(f"Reply {place}", "", words, "blue", half) for place, words in ((1, pair.first), (2, pair.second))]
    console.print(Columns(both, padding=0) if half else both[0])
    if not half:
        console.print(both[1])


def clean(text: str) -> str:
    """Text as a terminal may show it: what would move its cursor, change its colours or turn its lines is left out."""
    return "".join(sign for sign in text if sign in "\n\t" or unicodedata.category(sign)[0] != "C")
