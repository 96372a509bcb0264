"""Rights of a home that one process at a time has, and loses when it dies: to train, to tell a target of news, and to use
a device that is too small for training and serving at once.

The last is two locks: who trains holds ``.device-wanted`` from asking to the end, so that a server can see it; ``.device``
is held by whoever has the device. A server that serves beside runs takes neither, and no run waits for it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from pipeline.errors import RunError
from pipeline.filelock import try_lock
from pipeline.home import Home

LOOK_SECONDS = 0.2


def training_lease(home: Home) -> AbstractContextManager[bool]:
    """Whether this process may train within; it does not wait."""
    return try_lock(home.runs / ".training")


@contextmanager
def right_to_train(home: Home) -> Iterator[None]:
    """The right to train, for who cannot do without; raises ``RunError`` when another process has it."""
    with training_lease(home) as mine:
        if not mine:
            raise RunError("another process trains in this home", hint="wait for it, or stop it")
        yield


def notice_lease(home: Home, target: str) -> AbstractContextManager[bool]:
    """Whether this process may tell a target of news within, as two would tell it twice; it does not wait."""
    return try_lock(home.root / "notices" / f"{target}.lock")


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
