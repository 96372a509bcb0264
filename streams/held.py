"""The store of a process that holds it for long: shared by its threads, of which one at a time may write."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import StoreError, StoreHeldError
from pipeline.store import Store


class HeldStore:
    """An open store and who may write to it. ``changed`` is set by every ``announce``: by threads of this process when they
    have written what others wait for (windows closed, events in the outbox), and after each command of another process."""

    def __init__(self, store: Store) -> None:
        self._listeners: list[threading.Event] = []
        self.changed = self.listener()
        self._store = store
        self._lease = threading.Lock()
        self._guests = 0
        self._closed = False

    @property
    def guests(self) -> int:
        """How often somebody else than this process has had the store to write. What was read before may be outdated."""
        return self._guests

    def listener(self) -> threading.Event:
        """An event like ``changed``, for one more thread that clears it when it has looked."""
        event = threading.Event()
        self._listeners.append(event)
        return event

    def announce(self) -> None:
        """Wakes whoever waits for changes; to be called once they are durable."""
        for event in self._listeners:
            event.set()

    @contextmanager
    def writing(self) -> Iterator[Store]:
        """The store for this thread alone; raises ``StoreError`` once it is closed. Not to be entered again within."""
        with self._lease:
            if self._closed:
                raise StoreError("the store is closed")
            yield self._store

    @contextmanager
    def reading(self) -> Iterator[Store]:
        """The store for reading, beside whoever writes."""
        with self._store.beside() as store:
            yield store

    @contextmanager
    def lent(self, wait: float) -> Iterator[Store]:
        """As ``writing``, for a command of another process; raises ``StoreHeldError`` after ``wait`` seconds."""
        if not self._lease.acquire(timeout=wait):
            raise StoreHeldError(f"the store is in use, and was for {wait:g} s", hint="see `mailtide status`, or try again")
        try:
            with self._store.beside() as store:
                yield store
        finally:
            self._guests += 1
            self._lease.release()
            self.announce()

    def close(self) -> None:
        """Waits until nobody writes, and closes the store."""
        with self._lease:
            self._closed = True
            self._store.close()
