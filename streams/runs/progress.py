"""How far a run is, for other processes: its newest step, in a file of its folder while somebody carries it out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict

from pipeline.filelock import try_lock
from pipeline.home import Home, write_atomic
from streams.runs.runner import OnStep, Step
from streams.runs.withdrawal import RUNNING

PROGRESS = "progress.json"

EVERY_SECONDS = 0.5


@contextmanager
def published(home: Home, run_id: str, on_step: OnStep) -> Iterator[OnStep]:
    """Hears steps within, hands them on to ``on_step``, and writes down the newest one now and then, and each that begins a
    stage."""
    path = home.run(run_id) / PROGRESS
    stage, due = "", 0.0

    def hear(step: Step) -> None:
        nonlocal stage, due
        on_step(step)
        now = time.monotonic()
        if step.stage != stage or now >= due:
            with suppress(OSError):  # a full disk is told by what needs the room
                write_atomic(path, json.dumps(asdict(step)).encode())
            stage, due = step.stage, now + EVERY_SECONDS

    try:
        yield hear
    finally:
        with suppress(OSError):
            path.unlink()


def step_of(home: Home, run_id: str) -> Step | None:
    """The newest step of a run that is being carried out now, by whichever process of this machine; None of any other, and
    before its first step."""
    folder = home.run(run_id)
    if not folder.is_dir():
        return None
    with try_lock(folder / RUNNING) as free:
        if free:
            return None
    try:
        return Step(**json.loads((folder / PROGRESS).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
