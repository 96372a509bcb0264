"""How those who need the store only now and then open it: briefly, and with what froze in it checked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from pipeline.home import Home
from pipeline.settings import Settings
from pipeline.store import Store
from pipeline.versions import VERSIONS

OpenStore = Callable[[], AbstractContextManager[Store]]


def opener(home: Home, settings: Settings) -> OpenStore:
    """A function that opens the home's store for this process alone; see :meth:`Store.open` for what it raises."""

    def open_store() -> Store:
        return Store.open(home, settings, VERSIONS)

    return open_store
