"""Erases a sender, over and over, each time killed just before its Nth effect.

    python -m tests.support.forgetting_lives HOME ADDRESS

Each line of standard input is a number N (0: no kill); the answer is a line with the child's exit code, negative for the
signal, and the effects that it had counted: what outlives a process.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.config.configuration import read_home
from pipeline.errors import NothingToDo
from pipeline.home import Home
from pipeline.store import Store
from streams.erasure.asked import Asked, Kind
from streams.erasure.carrying import erase
from streams.stores import opener
from tests.support.pretended import MAILBOX

HEAVY = ("cryptography.hazmat.primitives.asymmetric.ed25519", "streams.remote_store", "duckdb", "pyarrow.parquet")
"""What the children would import, once each."""


def carry_out(home: Home, address: str) -> None:
    """As the command does."""
    settings = read_home(home, environment={})
    try:
        erase(home, settings, opener(home, settings), Asked(MAILBOX, Kind.SENDER, address), "test")
    except NothingToDo:
        return


class Doom:
    """Counts effects, and ends the process before the one that is named."""

    def __init__(self, at: int) -> None:
        self.count = 0
        self._at = at

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def doomed(*arguments: Any, **named: Any) -> Any:
            self.count += 1
            if self.count == self._at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return doomed

    def hang_over(self) -> None:
        owners: list[tuple[Any, str]] = [(Path, "replace"), (Path, "unlink"), (Store, "append"), (shutil, "rmtree")]
        for owner, name in owners:
            setattr(owner, name, self.before(getattr(owner, name)))


def main() -> None:
    """Serves until standard input ends."""
    home, address = Home(Path(sys.argv[1])), sys.argv[2]
    for heavy in HEAVY:
        importlib.import_module(heavy)
    for line in sys.stdin:
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            doom = Doom(int(line))
            doom.hang_over()
            code = 1
            try:
                carry_out(home, address)
                code = 0
            finally:
                os.write(tell, str(doom.count).encode())
                os._exit(code)
        os.close(tell)
        _, status = os.waitpid(child, 0)
        with os.fdopen(told) as counted:
            print(os.waitstatus_to_exitcode(status), counted.read() or 0, flush=True)


if __name__ == "__main__":
    main()
