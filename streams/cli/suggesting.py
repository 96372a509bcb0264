"""A command that is suggested can be repeated as it stands: with the ``--home`` that was given, where one was, and with the
program's path where its name alone would not find it."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from contextvars import ContextVar
from pathlib import Path

import click

PROGRAM = "mailtide"
SUGGESTED = re.compile(r"(^|`|: )mailtide (?!home\b|--home\b|[^`]*--help`)")
"""Where a command line begins in a sentence: at its start, behind a backtick or a colon. ``--help`` needs no home."""

_home: ContextVar[Path | None] = ContextVar("home given by --home", default=None)


def remember_home(given: Path | None) -> None:
    """From now on suggestions name this home; None: they need not, as the environment or the default does."""
    _home.set(given)


def program() -> str:
    """What to type for ``mailtide``: its path as it was typed, where it was started from outside of ``PATH``, as after
    ``make setup``."""
    typed = sys.argv[0]
    return shlex.quote(typed) if Path(typed).name == PROGRAM and shutil.which(PROGRAM) is None else PROGRAM


def repeatable(sentence: str) -> str:
    """The sentence, its command lines naming program and home as they must be typed again."""
    home = _home.get()
    named = f"{program()} " if home is None else f"{program()} --home {shlex.quote(str(home))} "
    return SUGGESTED.sub(lambda found: found[1] + named, sentence)


def suggest(sentence: str, *, err: bool = False) -> None:
    """Prints a sentence that holds a command to be run next."""
    click.echo(repeatable(sentence), err=err)
