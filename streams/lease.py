"""Rights of a home that one process at a time has, and loses when it dies: to train, and to tell a target of news."""

from __future__ import annotations

from contextlib import AbstractContextManager

from pipeline.filelock import try_lock
from pipeline.home import Home


def training_lease(home: Home) -> AbstractContextManager[bool]:
    """Whether this process may train within; it does not wait."""
    return try_lock(home.runs / ".training")


def notice_lease(home: Home, target: str) -> AbstractContextManager[bool]:
    """Whether this process may tell a target of news within, as two would tell it twice; it does not wait."""
    return try_lock(home.root / "notices" / f"{target}.lock")
