"""A command that is suggested can be repeated as it stands: with the ``--home`` that was given, where one was."""

from __future__ import annotations

import re
import shlex
from contextvars import ContextVar
from pathlib import Path

import click

SUGGESTED = re.compile(r"(^|`|: )mailtide (?!home\b|--home\b|[^`]*--help`)")
"""Where a command line begins in a sentence: at its start, behind a backtick or a colon. ``--help`` needs no home."""

_home: ContextVar[Path | None] = ContextVar("home given by --home", default=None)


def remember_home(given: Path | None) -> None:
    """From now on suggestions name this home; None: they need not, as the environment or the default does."""
    _home.set(given)


def repeatable(sentence: str) -> str:
    """The sentence, its command lines naming the home that this command was given."""
    home = _home.get()
    if home is None:
        return sentence
    named = f"mailtide --home {shlex.quote(str(home))} "
    return SUGGESTED.sub(lambda found: found[1] + named, sentence)


def suggest(sentence: str, *, err: bool = False) -> None:
    """Prints a sentence that holds a command to be run next."""
    click.echo(repeatable(sentence), err=err)
