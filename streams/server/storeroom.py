"""The home's store for a server's threads: opened for moments, through the daemon where one holds it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.config.settings import Settings
from pipeline.home import Home
from pipeline.store import Store
from pipeline.versions import VERSIONS
from streams.owning.stores import HANDOVER_SECONDS, store_of


class Storeroom:
    """One thread of this process at a time has the store; it should be given back within moments, as every other command
    waits for it as well. Raises ``StoreHeldError`` while a command holds it for long."""

    def __init__(self, home: Home, settings: Settings) -> None:
        self._home = home
        self._settings = settings
        self._lock = threading.Lock()

    @contextmanager
    def reading(self) -> Iterator[Store]:
        """The store, beside whoever writes where a daemon runs."""
        with self._lock, store_of(self._home, None, None, writes=False, patience=HANDOVER_SECONDS) as store:
            yield store

    @contextmanager
    def writing(self) -> Iterator[Store]:
        """The store for this thread alone; what froze in it must agree with the settings and with this version."""
        with self._lock, store_of(self._home, self._settings, VERSIONS, writes=True, patience=HANDOVER_SECONDS) as store:
            yield store
