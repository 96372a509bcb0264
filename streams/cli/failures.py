"""What went wrong, for people: one line that names the thing and the next step, and the exit code that goes with it."""

from __future__ import annotations

import difflib
import errno
import os
import re

import click

from pipeline.errors import MailtideError
from streams.runs.faults import tells_of_full_disk

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
UNKNOWN_COMMAND = re.compile(r"no such command '(?P<name>.*)'$")
MAKE_ROOM = "make room on the disk and run the same command again, which goes on where this one stopped"


def told(error: click.ClickException | MailtideError | OSError) -> tuple[str, int]:
    """The line, without line breaks of whatever is quoted in it, and the exit code."""
    if isinstance(error, MailtideError):
        line, code = _ours(error), error.exit_code
    elif isinstance(error, click.ClickException):
        line, code = _of_usage(error), error.exit_code
    else:
        line, code = _of_system(error), 1
    return " ".join(line.split()), code


def _ours(error: MailtideError) -> str:
    if tells_of_full_disk(error.message):
        return f"{error.message}; {MAKE_ROOM}"
    return str(error)


def _of_usage(error: click.ClickException) -> str:
    said = error.format_message().rstrip(".")
    line = said[:1].lower() + said[1:]
    context = getattr(error, "ctx", None)
    if context is not None:
        line += _meant(line, context)
    return f"{line}; see `{context.command_path} --help`" if context is not None else line


def _meant(line: str, context: click.Context) -> str:
    """The command that was meant, where a name was mistyped."""
    wrong = UNKNOWN_COMMAND.match(line)
    if wrong is None or not isinstance(context.command, click.Group):
        return ""
    near = difflib.get_close_matches(wrong["name"], context.command.list_commands(context), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _of_system(error: OSError) -> str:
    """A file that cannot be read or written, where nobody nearer knew more about it."""
    full = error.errno in DISK_FULL
    what = os.strerror(error.errno) if full and error.errno else error.strerror or str(error)
    line = f"{error.filename}: {what}" if error.filename is not None else what
    return f"{line}; {MAKE_ROOM if full else 'check the path and its permissions'}"
