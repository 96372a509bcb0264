"""A device that is too small for training and serving at once: a run asks for it, a server gives it up, and gets it back.

Two locks on files: who trains holds ``.device-wanted`` from asking to the end, so that a server can see it; ``.device`` is
held by whoever has the device. A server that serves beside runs takes neither, and no run waits for it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from pipeline.filelock import try_lock
from pipeline.home import Home

LOOK_SECONDS = 0.2


@contextmanager
def device_for_training(home: Home, stopping: threading.Event) -> Iterator[None]:
    """The device within, as soon as a server has given it up; nobody waits any more once ``stopping`` is set."""
    with _awaited(home, ".device-wanted", stopping), _awaited(home, ".device", stopping):
        yield


def device_for_serving(home: Home) -> AbstractContextManager[bool]:
    """Whether a server may have the device within."""
    return try_lock(home.runs / ".device")


def training_wants_it(home: Home) -> bool:
    """Whether a run has the device, or waits for it."""
    with try_lock(home.runs / ".device-wanted") as free:
        return not free


@contextmanager
def _awaited(home: Home, name: str, stopping: threading.Event) -> Iterator[None]:
    while True:
        with try_lock(home.runs / name) as mine:
            if mine or stopping.is_set():
                yield
                return
        stopping.wait(LOOK_SECONDS)
