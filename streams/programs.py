"""Programs that the settings name, run without a shell. Errors hold neither what they print nor their arguments."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress

from pipeline.errors import MailtideError


def run_program(
    command: str,
    purpose: str,
    failure: type[MailtideError],
    *,
    seconds: float,
    by_hand: str,
    stdout: int = subprocess.DEVNULL,
    given: bytes | None = None,
    environment: Mapping[str, str] | None = None,
) -> bytes:
    """Runs a command to its end with ``given`` as its standard input; returns what it printed, with ``subprocess.PIPE`` as
    ``stdout``. Raises ``failure`` when it cannot be run, does not end within ``seconds`` (it is then killed, with what it
    started) or fails; ``by_hand`` is the hint how to see why.
    """
    words = words_of(command)
    if not words:
        raise failure(f"the command for {purpose} cannot be read", hint="check its quotes")
    program = words[0]
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
            stdout=stdout,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    except OSError as error:
        raise failure(f"the command {program} cannot be run: {error.strerror}", hint="check its path") from None
    output: bytes | None = None
    ended = False
    with process:
        try:
            with suppress(subprocess.TimeoutExpired):
                output, _ = process.communicate(given, timeout=seconds)
                ended = True
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
    if not ended:
        raise failure(f"the command {program} did not end within {seconds:g} seconds", hint=by_hand)
    if process.returncode != 0:
        del output
        raise failure(f"the command {program} failed with exit code {process.returncode}", hint=by_hand)
    return output or b""


def words_of(command: str) -> list[str]:
    """A command line's program and arguments; none when its quotes do not close."""
    with suppress(ValueError):
        return shlex.split(command)
    return []
