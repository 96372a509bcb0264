"""This side of a parser process: starts it, moves mails and answers through its pipes, and tells how it ended."""

from __future__ import annotations

import fcntl
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from streams.parsers.frames import LENGTH, OUT_OF_MEMORY, Orders, frame

PIPE_BYTES = 1 << 20
"""What a pipe holds, where the system lets us: this process may be busy for long while a parser reads and answers."""


class ParserGone(Exception):
    """The process has ended, or was killed here because it fell silent; what was sent and not answered is unanswered for
    good. ``str()`` says how, as the reason of a dead letter."""


class ParserLink:
    """One parser process. One thread sends and receives; any may ``kill``. The thread that makes it must outlive it, or
    the process ends with the thread."""

    def __init__(self, orders: Orders) -> None:
        self._memory_bytes = orders.memory_bytes
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
        self._process = subprocess.Popen(
            # Modules come from where this process has them, never from the folder that it happens to be in.
            [sys.executable, "-P", "-m", "streams.parsers.process"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            bufsize=0,
            process_group=0,  # what a terminal sends to the foreground is not for it
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        for pipe in (self._in, self._out):
            _widen(pipe)
        os.set_blocking(self._in, False)
        self._unsent: deque[memoryview] = deque()
        self._received = bytearray()
        self.send(orders)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, value: Orders | Sequence[bytes]) -> None:
        """Hands on orders or mails. They leave this process during the next ``receive``."""
        self._unsent.append(memoryview(frame(value)))

    def receive(self, seconds: float) -> list[Any]:
        """The next answers, in the order of the mails. Something must be unanswered, or the process not yet ready, which
        it says by a list without answers.

        Raises ``ParserGone`` when the process has ended, and when it is silent for ``seconds``: then it is killed.
        """
        deadline = time.monotonic() + seconds
        while (answers := self._next_answers()) is None:
            if self._moved(deadline - time.monotonic()):
                deadline = time.monotonic() + seconds
            elif time.monotonic() >= deadline:
                self.kill()
                self.close()
                raise ParserGone(f"parsing took longer than {seconds:g} s")
        return answers

    def kill(self) -> None:
        """Ends the process at once; whoever waits for answers is told."""
        self._process.kill()

    def close(self) -> None:
        """Ends the process and lets go of its pipes; may be called again."""
        if self._said.closed:
            return
        self._process.kill()
        self._process.communicate()  # closes the pipes and reaps
        self._said.close()

    def _moved(self, seconds: float) -> bool:
        """Waits until bytes can go one way or the other; False when none could within ``seconds``."""
        poll = select.poll()
        poll.register(self._out, select.POLLIN)
        if self._unsent:
            poll.register(self._in, select.POLLOUT)
        events = dict(poll.poll(max(0.0, seconds) * 1000))
        if self._out in events:
            chunk = os.read(self._out, PIPE_BYTES)
            if not chunk:
                raise self._gone()
            self._received += chunk
        elif self._in in events:
            self._write()
        return bool(events)

    def _write(self) -> None:
        try:
            written = os.write(self._in, self._unsent[0])
        except BrokenPipeError:
            raise self._gone() from None
        self._unsent[0] = self._unsent[0][written:]
        if not self._unsent[0]:
            self._unsent.popleft()

    def _next_answers(self) -> list[Any] | None:
        if len(self._received) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack_from(self._received)
        end = LENGTH.size + length
        if len(self._received) < end:
            return None
        with memoryview(self._received) as received:
            answers: list[Any] = pickle.loads(received[LENGTH.size : end])
        del self._received[:end]
        return answers

    def _gone(self) -> ParserGone:
        """How the process ended; its output has, so it is about to."""
        code = self._process.wait()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        self.close()
        if code == OUT_OF_MEMORY:
            return ParserGone(f"parsing needed more than {self._memory_bytes >> 20} MB of memory")
        if code < 0:
            return ParserGone(f"the parser process was killed by {signal.Signals(-code).name}")
        return ParserGone(f"the parser process ended with code {code}" + (f": {lines[-1]}" if lines else ""))


def _widen(pipe: int) -> None:
    size = getattr(fcntl, "F_SETPIPE_SZ", None)  # Linux
    if size is not None:
        try:
            fcntl.fcntl(pipe, size, PIPE_BYTES)
        except OSError:  # the user's pipes hold as much as they may: smaller ones do as well, slower
            return
