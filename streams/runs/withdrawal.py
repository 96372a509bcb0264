"""A run that is taken back while it trains, because mail that it reads is erased: its training process ends at its next
step, and whoever erases waits for that before the run's files go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import RunError
from pipeline.filelock import locked, try_lock
from pipeline.home import Home, write_atomic

WITHDRAWN, RUNNING = "withdrawn.json", ".running"
"""Files of a run's folder: that it is taken back, and the lock of whoever carries it out."""

LOOK_SECONDS = 0.2


@contextmanager
def running(home: Home, run_id: str) -> Iterator[None]:
    """Marks the run as being carried out within. Raises ``RunError`` when it is withdrawn."""
    with locked(home.run(run_id) / RUNNING):
        if is_withdrawn(home, run_id):
            raise withdrawn(run_id)
        yield


def is_withdrawn(home: Home, run_id: str) -> bool:
    return (home.run(run_id) / WITHDRAWN).exists()


def withdrawn(run_id: str) -> RunError:
    """What whoever carries it out is told."""
    return RunError(f"run {run_id} is withdrawn: mail that it reads was erased", hint="its windows join the next run")


def withdraw(home: Home, run_id: str, seconds: float) -> None:
    """Takes a run back, and waits until nobody carries it out any more. Raises ``RunError`` after so many seconds."""
    write_atomic(home.run(run_id) / WITHDRAWN, b"{}\n")
    until = time.monotonic() + seconds
    while True:
        with try_lock(home.run(run_id) / RUNNING) as free:
            if free:
                return
        if time.monotonic() >= until:
            raise RunError(
                f"run {run_id} is withdrawn, and its training process has not ended yet",
                hint="run the same command again in a moment: it goes on where it stopped",
            )
        time.sleep(LOOK_SECONDS)
