"""What went wrong, for people: one line that names the thing and the next step, and the exit code that goes with it."""

from __future__ import annotations

import errno

import click

from pipeline.errors import MailtideError
from streams.faults import tells_of_full_disk

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
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
    return f"{line}; see `{context.command_path} --help`" if context is not None else line


def _of_system(error: OSError) -> str:
    """A file that cannot be read or written, where nobody nearer knew more about it."""
    what = error.strerror or str(error)
    line = f"{error.filename}: {what}" if error.filename is not None else what
    return f"{line}; {MAKE_ROOM if error.errno in DISK_FULL else 'check the path and its permissions'}"
