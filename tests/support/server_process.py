"""A server program that a test starts, stops, kills, and starts again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

LOOK_SECONDS = 0.02
END_SECONDS = 60


class ServerProcess:
    """At most one process at a time; what it says goes to the end of ``log``."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(
        self,
        command: Sequence[str],
        ready: Callable[[], bool],
        seconds: float,
        *,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Returns once it is ``ready``; raises ``RuntimeError`` with its last words when it does not come up in time."""
        with self._log.open("ab") as out:
            # No server outlives the tests, also when these are killed.
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                cwd=folder,
                env=os.environ if environment is None else environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + seconds
        while not ready():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(LOOK_SECONDS)
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.end(signal.SIGKILL)
                raise RuntimeError(f"the server did not start:\n{self._log.read_text(errors='replace')[-3000:]}")

    def end(self, how: signal.Signals) -> None:
        """Sends the signal and waits; one that does not end is killed."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            try:
                self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
