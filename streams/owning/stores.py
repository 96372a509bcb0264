"""How those who need the store only now and then get it: from the daemon that holds it, else by opening it, briefly."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

from pipeline.config.settings import Settings
from pipeline.errors import StoreHeldError
from pipeline.home import Home
from pipeline.store import Store, Versions
from pipeline.versions import VERSIONS
from streams.owning.remote_store import OwnerGone, RemoteStore

OpenStore = Callable[[], AbstractContextManager[Store]]

PATIENCE_SECONDS = 2.0
"""How long another command is waited for, and a daemon that has opened the store and does not listen yet."""

HANDOVER_SECONDS = 10.0
"""How long is waited where others have the store for moments, again and again: by who reads while daemons stop and start,
and by a server beside commands."""

KEEPER_SECONDS = 60.0
"""How long a process that is to keep the store waits for those who have it for moments: once it has it, they come to it."""


def opener(home: Home, settings: Settings) -> OpenStore:
    """A function that gives the home's store to this process alone; see :func:`store_of` for what it raises."""

    def open_store() -> Store:
        return store_of(home, settings, VERSIONS, writes=True)

    return open_store


def store_of(
    home: Home,
    settings: Settings | None,
    versions: Versions | None,
    *,
    writes: bool,
    patience: float = PATIENCE_SECONDS,
) -> Store:
    """The store of a home, through its owner when one runs; who only reads keeps it when that owner stops, or another one
    starts. Raises as :meth:`Store.open` does, after ``patience`` seconds where somebody has it."""

    def again() -> Store:
        return store_of(home, settings, versions, writes=False, patience=HANDOVER_SECONDS)

    begun = time.monotonic()
    while True:
        try:
            remote = RemoteStore.reach(home, settings, versions, writes=writes, again=again)
        except OwnerGone:
            patience = HANDOVER_SECONDS
        else:
            if remote is not None:
                return remote
        try:
            return Store.open(home, settings, versions)
        except StoreHeldError:
            if time.monotonic() - begun >= patience:
                raise
        time.sleep(0.05)


def kept_store(home: Home, settings: Settings) -> Store:
    """The store for a process that keeps it, as the daemon does. Raises ``StoreHeldError`` at once where another one keeps
    it and answers for it, after a while where somebody has it without a pause, and else what :meth:`Store.open` does."""
    until = time.monotonic() + KEEPER_SECONDS
    while True:
        try:
            return Store.open(home, settings, VERSIONS)
        except StoreHeldError:
            with suppress(OwnerGone):
                other = RemoteStore.reach(home, None, None, writes=False)
                if other is not None:
                    other.close()
                    raise
            if time.monotonic() >= until:
                raise
        time.sleep(0.01)  # sooner than those who come for moments
