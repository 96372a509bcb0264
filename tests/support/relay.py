"""A wire to a server that can be cut or held after any number of bytes."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

HOST = "127.0.0.1"
BLOCK = 65_536


class Relay:
    """Passes on what comes to ``port`` to a server on loopback, and its answers back.

    After ``limit`` bytes of answers a connection is cut, or, if ``hold`` is set, kept open without a further byte. Both
    may be changed between connections; ``passed`` counts the answers' bytes since the last change of ``limit``. With
    ``most`` it takes so many connections in all, and is not there for more.
    """

    def __init__(self, target: int, most: int | None = None) -> None:
        self._target = target
        self._listener = socket.create_server((HOST, 0))
        self.port = int(self._listener.getsockname()[1])
        self.hold = False
        self.passed = 0
        self._most = most
        self._limit: int | None = None
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def limit(self) -> int | None:
        return self._limit

    @limit.setter
    def limit(self, value: int | None) -> None:
        self._limit, self.passed = value, 0

    def close(self) -> None:
        """Cuts everything."""
        for each in [self._listener, *self._open]:
            _cut(each)

    def _accept(self) -> None:
        with suppress(OSError):
            for _ in itertools.count() if self._most is None else range(self._most):
                client, _ = self._listener.accept()
                server = socket.create_connection((HOST, self._target))
                self._open += [client, server]
                threading.Thread(target=self._pass, args=(client, server), daemon=True).start()
                threading.Thread(target=self._answer, args=(server, client), daemon=True).start()
        self._listener.close()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(BLOCK):
                target.sendall(data)
        _cut(target)

    def _answer(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(BLOCK):
                if self._limit is not None:
                    data = data[: self._limit - self.passed]
                target.sendall(data)
                self.passed += len(data)
                if self.passed == self._limit:
                    if self.hold:
                        return
                    break
        _cut(target)
        _cut(source)


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@contextmanager
def relay(target: int, most: int | None = None) -> Iterator[Relay]:
    """A relay to the server on port ``target``, cut at the end."""
    running = Relay(target, most)
    try:
        yield running
    finally:
        running.close()
