"""Runs a command that is killed again and again, as by a power cut, until one of its lives reaches the end."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TAIL_LINES = 30


@dataclass(frozen=True, slots=True)
class Lives:
    """How often a command was killed, and what each of its lives printed (both streams, in lines), the last one whole."""

    kills: int
    outputs: tuple[tuple[str, ...], ...]

    @property
    def output(self) -> tuple[str, ...]:
        """What the life printed that reached the end."""
        return self.outputs[-1]


def run_killed(
    argv: Sequence[str],
    env: Mapping[str, str] | None = None,
    *,
    kills: int,
    seed: int,
    delay: tuple[float, float] | None = None,
    lines: tuple[int, int] | None = None,
    limit: float = 120.0,
    cwd: Path | None = None,
    accept: Sequence[int] = (0,),
) -> Lives:
    """Runs ``argv``, sends it SIGKILL, and starts it again, at most ``kills`` times; then lets it reach its end.

    A kill comes after a seeded time within ``delay`` (seconds), or with the seeded line of output within ``lines``; give
    one of the two. Only the command itself is killed, as a process that dies by itself would leave its children; what is
    left of its process group is ended before the next life and in the end. ``env`` is added to this process's.
    Raises ``AssertionError`` when a life ends with another exit code than ``accept``, or all of them together take
    longer than ``limit`` seconds. A life may end before its kill, so there may be fewer kills than asked for.
    """
    if (delay is None) == (lines is None):
        raise ValueError("give either delay or lines")
    rng = random.Random(seed)
    deadline = time.monotonic() + limit
    outputs: list[tuple[str, ...]] = []
    for life in range(kills + 1):
        last = life == kills
        seconds = rng.uniform(*delay) if delay and not last else None
        count = rng.randint(*lines) if lines and not last else None
        code, output = _live(argv, {**os.environ, **(env or {})}, cwd, seconds, count, deadline)
        outputs.append(output)
        if code is None and not last:
            continue
        tail = "\n".join(output[-TAIL_LINES:])
        assert code in accept, f"{argv[0]} ended with {code} after {life} kills:\n{tail}"
        break
    return Lives(len(outputs) - 1, tuple(outputs))


def _live(
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: Path | None,
    seconds: float | None,
    count: int | None,
    deadline: float,
) -> tuple[int | None, tuple[str, ...]]:
    """One life: the exit code, None where it was killed, and its output."""
    printed: list[str] = []
    process = subprocess.Popen(
        argv,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdout is not None
    stream = process.stdout

    def read() -> None:
        for line in stream:
            printed.append(line.rstrip("\n"))
            if len(printed) == count:
                process.kill()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    left = max(0.0, deadline - time.monotonic())
    late = False
    try:
        process.wait(left if seconds is None else min(left, seconds))
    except subprocess.TimeoutExpired:
        late = seconds is None or seconds >= left
        process.kill()
        process.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        reader.join(5.0)
    tail = "\n".join(printed[-TAIL_LINES:])
    assert not late, f"{argv[0]} was not done in time:\n{tail}"
    return None if process.returncode == -signal.SIGKILL else process.returncode, tuple(printed)
