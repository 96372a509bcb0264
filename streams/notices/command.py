"""A notice as the standard input of a program."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from contextlib import suppress

from pipeline.config.notice_settings import CommandTarget
from pipeline.errors import NoticeError
from streams.notices.notice import Notice


def call(settings: CommandTarget, notice: Notice) -> str:
    """Raises ``NoticeError`` unless the program ends with exit code 0 within the time-out.

    It gets the notice as one JSON object, and its id as ``MAILTIDE_NOTICE_ID``. What it prints is thrown away, and of its
    arguments none is named in an error: they may be private.
    """
    words = _words(settings.command)
    if not words:
        raise NoticeError("the command for notices cannot be read", hint="check its quotes")
    program = words[0]
    by_hand = "try it: `mailtide notify test`"
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "MAILTIDE_NOTICE_ID": notice.id},
            start_new_session=True,
        )
    except OSError as error:
        raise NoticeError(f"the command {program} cannot be run: {error.strerror}", hint="check its path") from None
    ended = False
    with process:
        try:
            with suppress(subprocess.TimeoutExpired):
                process.communicate(notice.to_json(), timeout=settings.timeout)
                ended = True
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
    if not ended:
        raise NoticeError(f"the command {program} did not end within {settings.timeout:g} seconds", hint=by_hand)
    if process.returncode != 0:
        raise NoticeError(f"the command {program} failed with exit code {process.returncode}", hint=by_hand)
    return ""


def _words(command: str) -> list[str]:
    with suppress(ValueError):
        return shlex.split(command)
    return []
