"""Work done over and over by a process that is killed just before its Nth effect.

Effects are what outlives a process: a file that gets its name, a transaction, a request that has been sent. The work is
done by children of one process that has imported all they need: each line of its standard input is a number N (0: no kill),
the answer a line with the child's exit code, negative for the signal, and the effects that it had counted.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import REPOSITORY


@dataclass
class Lives:
    """A process that serves (:func:`serve`)."""

    process: subprocess.Popen[str]

    def live(self, kill_before: int) -> tuple[int, int]:
        """The exit code of one life (-9: killed), and how many effects it counted."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{kill_before}\n")
        self.process.stdin.flush()
        code, count = self.process.stdout.readline().split()
        return int(code), int(count)


@contextmanager
def lives(module: str, *arguments: str) -> Iterator[Lives]:
    """Runs ``python -m module arguments``, which serves."""
    # The allocator of Arrow has a thread, and a process with threads is not one to fork.
    quiet = {"JE_ARROW_MALLOC_CONF": "background_thread:false", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    argv, env = [sys.executable, "-m", module, *arguments], {**os.environ, **quiet}
    process = subprocess.Popen(argv, cwd=REPOSITORY, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Lives(process)
    finally:
        process.kill()
        process.wait()


class Doom:
    """Counts effects, and ends the process before the one that is named."""

    def __init__(self, at: int, effects: Sequence[tuple[Any, str]]) -> None:
        self.count = 0
        self._at = at
        for owner, name in effects:
            setattr(owner, name, self._before(getattr(owner, name)))

    def _before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def doomed(*arguments: Any, **named: Any) -> Any:
            self.count += 1
            if self.count == self._at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return doomed


def serve(carry_out: Callable[[], None], effects: Sequence[tuple[Any, str]], heavy: Sequence[str]) -> None:
    """Until standard input ends. ``effects`` are functions by owner and name, ``heavy`` the modules that children would
    import, once each."""
    for name in heavy:
        importlib.import_module(name)
    threads = list(Path("/proc/self/task").iterdir())
    assert len(threads) == 1, "a thread does not live on in a child, and the locks that it holds do"
    for line in sys.stdin:
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            doom = Doom(int(line), effects)
            code = 1
            try:
                carry_out()
                code = 0
            finally:
                os.write(tell, str(doom.count).encode())
                os._exit(code)
        os.close(tell)
        _, status = os.waitpid(child, 0)
        with os.fdopen(told) as counted:
            print(os.waitstatus_to_exitcode(status), counted.read() or 0, flush=True)
