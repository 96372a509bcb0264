"""The right to train in a home: one process at a time has it, and loses it when it dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.home import Home, private_dir


@contextmanager
def training_lease(home: Home) -> Iterator[bool]:
    """Whether this process may train within; it does not wait. The system takes the lock from a process that ends."""
    private_dir(home.runs)
    file = os.open(home.runs / ".training", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(file)
