"""The owner's socket: commands of other processes use the store through the process that holds it.

A client says hello, and then calls methods of the store by name, one at a time; values travel pickled. That is safe here
and only here: the socket lies in a folder that nobody but its user can enter, and whoever is that user needs no socket.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from typing import Any

from pipeline.config.settings import Settings
from pipeline.errors import MailtideError, StoreError
from pipeline.home import Home
from pipeline.store import Store, Versions
from pipeline.store.rewriting import Gone, rewrite_bodies
from streams.owning.held import LAST_SECONDS, HeldStore

log = logging.getLogger(__name__)

CALLS = frozenset(
    (
        "append",
        "query",
        "lookup",
        "iter_threads",
        "all_messages",
        "messages_by_key",
        "read_view",
        "answer_sql",
        "checkpoint",
        "schema_version",
    )
)
"""What a client may ask of a store, by name."""

BUSY_SECONDS = 60.0
"""How long a command waits for the store to be free to write."""

SILENT_SECONDS = 300.0
"""After so long without a call a client loses the store: others wait for it."""

LONGEST_ADDRESS = 100
"""Bytes of a Unix socket's address; the systems allow 104 to 108."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What a client begins with. ``writes`` asks for the store alone; ``settings`` and ``versions`` are checked against
    what froze with it, as when a store is opened."""

    program: str
    writes: bool
    settings: Settings | None
    versions: Versions | None


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What a client says instead of hello that has texts and people erased: for that the owner closes the store."""

    program: str
    gone: Gone


@dataclass(frozen=True, slots=True)
class Call:
    """A method of the store, by name."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def of(self, store: Store) -> Any:
        """What a store answers."""
        if self.name == "schema_version":
            return store.schema_version
        return getattr(store, self.name)(*self.args, **self.kwargs)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: a value, one ``item`` of several, their ``end``, or an ``error`` to raise."""

    kind: str
    value: Any = None


def program() -> str:
    """Version of this program: client and owner must be of one."""
    return version("mailtide")


@contextmanager
def address(home: Home) -> Iterator[str]:
    """Where a home's socket lies, in the few bytes that the systems allow for it."""
    path = str(home.owner_socket)
    if len(os.fsencode(path)) <= LONGEST_ADDRESS:
        yield path
        return
    folder = os.open(home.root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{home.owner_socket.name}"
    finally:
        os.close(folder)


def rewrite_by_owner(home: Home, gone: Gone) -> bool:
    """Has the process that holds the store erase texts and people; False when none answers. Raises what it says."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with address(home) as where:
            line.connect(where)
    except OSError:
        line.close()
        return False
    with Connection(line.detach()) as client:
        try:
            client.send(Rewrite(program(), gone))
            reply = client.recv()
        except (EOFError, OSError) as error:
            raise StoreError(
                "the daemon that holds the store has stopped", hint="run the same command again: it goes on"
            ) from error
    if reply.kind == "error":
        raise reply.value
    return True


class OwnerSocket:
    """Answers clients, each in a thread of its own. ``state`` tells how the owner is doing, for `mailtide status`."""

    def __init__(self, home: Home, held: HeldStore, state: Callable[[], object]) -> None:
        """Raises ``StoreError`` when the socket cannot be made."""
        self._home = home
        self._held = held
        self._state = state
        self._clients: dict[Connection, threading.Thread] = {}
        self._closing = False
        # Who holds the store is the only one who may listen, so what lies there is a dead owner's.
        home.owner_socket.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with address(home) as where:
                self._socket.bind(where)
        except OSError as error:
            self._socket.close()
            raise StoreError(
                f"no socket can be made at {home.owner_socket}: {error.strerror or error}",
                hint="name a home with a shorter path, on a local disk",
            ) from error
        home.owner_socket.chmod(0o600)
        self._socket.listen()
        self._thread = threading.Thread(target=self._accept, name="owner-socket", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Takes no more clients, lets go of those there are, and waits a few seconds until nothing is done for any.

        A thread that is inside a library's C++ when the interpreter ends would take the process down with an abort.
        """
        self._closing = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        serving = list(self._clients.items())
        for client, _ in serving:
            # Closing the descriptor would not wake a thread that reads it.
            with suppress(OSError), socket.socket(fileno=os.dup(client.fileno())) as line:
                line.shutdown(socket.SHUT_RDWR)
        last = time.monotonic() + LAST_SECONDS
        for _, thread in serving:
            thread.join(max(0.0, last - time.monotonic()))
        # Until here who calls is refused, and so knows that the store is about to be free.
        self._home.owner_socket.unlink(missing_ok=True)

    def _accept(self) -> None:
        while not self._closing:
            try:
                accepted, _ = self._socket.accept()
            except OSError:
                return
            client = Connection(accepted.detach())
            thread = threading.Thread(target=self._serve, args=(client,), name="owner-client", daemon=True)
            self._clients[client] = thread
            thread.start()

    def _serve(self, client: Connection) -> None:
        try:
            self._answer(client)
        except (EOFError, OSError):
            pass  # the client is gone
        except Exception:
            log.exception("a client of the owner's socket was given up")
        finally:
            self._clients.pop(client)
            client.close()

    def _answer(self, client: Connection) -> None:
        hello = client.recv()
        try:
            if not isinstance(hello, Hello | Rewrite) or hello.program != program():
                raise StoreError(
                    f"the store is held by a daemon of mailtide {program()}, another version than this command's",
                    hint="restart the daemon",
                )
            if isinstance(hello, Rewrite):
                self._held.set_aside(lambda: rewrite_bodies(self._home, hello.gone), BUSY_SECONDS)
                client.send(Reply("value"))
                return
            # Waiting is bounded, as is silence: neither a slow writer nor a stopped client may block the others for good.
            lent = self._held.lent(BUSY_SECONDS) if hello.writes else self._held.reading()
            with lent as store:
                store.require_agreement(hello.settings, hello.versions)
                client.send(Reply("value", os.getpid()))
                while client.poll(SILENT_SECONDS):
                    self._carry_out(client, store, client.recv())
        except MailtideError as error:
            client.send(Reply("error", error))

    def _carry_out(self, client: Connection, store: Store, call: Call) -> None:
        try:
            if call.name == "state":
                client.send(Reply("value", self._state()))
            elif call.name not in CALLS:
                raise StoreError(f"the owner of a store is not asked for {call.name}")
            else:
                self._call(client, call.of(store))
        except MailtideError as error:
            client.send(Reply("error", error))
        except (TypeError, ValueError, AttributeError) as error:
            log.exception("a call of %s failed", call.name)
            client.send(Reply("error", StoreError(f"the owner could not carry out {call.name}: {error}")))

    def _call(self, client: Connection, result: Any) -> None:
        if not isinstance(result, Iterator):
            client.send(Reply("value", result))
            return
        for item in result:
            client.send(Reply("item", item))
        client.send(Reply("end"))
