"""The store of a process that holds it for long: shared by its threads, of which one at a time may write."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.errors import StoreError, StoreHeldError
from pipeline.store import Store

LAST_SECONDS = 5.0
"""How long who reads may go on once the store is to be closed."""


class HeldStore:
    """An open store and who may write to it. ``changed`` is set by every ``announce``: by threads of this process when they
    have written what others wait for (windows closed, events in the outbox), and after each command of another process."""

    def __init__(self, store: Store, reopen: Callable[[], Store] | None = None) -> None:
        """``reopen`` opens the store again after it was set aside."""
        self._listeners: list[threading.Event] = []
        self.changed = self.listener()
        self._store = store
        self._reopen = reopen
        self._lease = threading.Lock()
        self._readers = 0
        self._away = False
        self._reading = threading.Condition()
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
        """The store for reading, beside whoever writes; raises ``StoreError`` once it is closed."""
        with self._reading:
            self._reading.wait_for(lambda: not self._away)
            if self._closed:
                raise StoreError("the store is closed")
            self._readers += 1
        try:
            with self._store.beside() as store:
                yield store
        finally:
            with self._reading:
                self._readers -= 1
                self._reading.notify_all()

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

    def set_aside(self, work: Callable[[], None], wait: float) -> None:
        """Closes the store, has its files worked on, and opens it again; nobody reads or writes meanwhile. Raises
        ``StoreHeldError`` when somebody has it for longer than ``wait`` seconds, and what the work raises."""
        assert self._reopen is not None, "who never sets a store aside need not say how it is opened again"
        if not self._lease.acquire(timeout=wait):
            raise StoreHeldError(f"the store is in use, and was for {wait:g} s", hint="see `mailtide status`, or try again")
        try:
            with self._reading:
                self._away = True
                if not self._reading.wait_for(lambda: not self._readers, wait):
                    raise StoreHeldError(f"the store is being read, and was for {wait:g} s", hint="try again")
                self._store.close()
                try:
                    work()
                finally:
                    self._store = self._reopen()
        finally:
            with self._reading:
                self._away = False
                self._reading.notify_all()
            self._guests += 1
            self._lease.release()
            self.announce()

    def close(self) -> None:
        """Waits until nobody writes, and for a few seconds until nobody reads, and closes the store."""
        with self._lease, self._reading:
            self._closed = True
            self._reading.wait_for(lambda: not self._readers, LAST_SECONDS)
            self._store.close()
