"""A store that another process of this machine holds, used through its owner's socket as if it were open here."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, cast

from pipeline.arrival.people import PeopleKey
from pipeline.config.settings import Settings
from pipeline.errors import StoreError
from pipeline.home import Home
from pipeline.store import Store, Versions
from pipeline.store.people_sql import ROW_LIMIT, SECONDS, Result
from pipeline.store.rows import Row
from pipeline.store.tables import Packed
from streams.owning.owner_socket import Call, Hello, Reply, address, program

if TYPE_CHECKING:
    from pyarrow import RecordBatch

    from pipeline.arrival.threads import Known, Needs
    from pipeline.domain import StoredMessage


class OwnerGone(StoreError):
    """The process that holds the store has stopped, and said no more."""

    def __init__(self) -> None:
        super().__init__("the daemon that holds the store has stopped", hint="run the same command again")


class RemoteStore(Store):
    """Every call is carried out by the owner, who checks and writes as for itself. Opened to write, the store is this
    client's alone until it is closed.

    Where the owner stops meanwhile, a client that only reads asks whoever has the store then, by ``again``. One that writes
    is told so: it cannot know what was written.
    """

    def __init__(self, line: Connection, home: Home, again: Callable[[], Store] | None) -> None:
        self._line = line
        self._people = PeopleKey.read(home.people_key)
        self._again = again
        self._next: Store | None = None

    @classmethod
    def reach(
        cls,
        home: Home,
        settings: Settings | None,
        versions: Versions | None,
        *,
        writes: bool,
        again: Callable[[], Store] | None = None,
    ) -> RemoteStore | None:
        """The store of a home by its owner's socket; None when no owner answers there. Raises what the owner says, and
        ``OwnerGone`` for one that is just stopping, or was killed."""
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with address(home) as where:
                client.connect(where)
        except ConnectionRefusedError:
            client.close()
            raise OwnerGone from None
        except OSError:
            client.close()
            return None
        store = cls(Connection(client.detach()), home, None if writes else again)
        try:
            store._send(Hello(program(), writes, settings, versions))
            store._answer()
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        self._line.close()
        if self._next is not None:
            self._next.close()

    def owner_state(self) -> Any:
        """What the owner says of itself; None where the store has none any more."""
        return self._asked(
            Call("state", (), {}), lambda store: store.owner_state() if isinstance(store, RemoteStore) else None
        )

    @property
    def schema_version(self) -> int:
        return int(self._ask("schema_version"))

    def append(self, rows: Iterable[Row | Packed]) -> None:
        self._ask("append", list(rows))

    def query(self, sql: str, params: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return cast("list[tuple[Any, ...]]", self._ask("query", sql, list(params)))

    def lookup(self, mailbox: str, needs: Needs) -> Known:
        return cast("Known", self._ask("lookup", mailbox, needs))

    def iter_threads(
        self, mailbox: str, window_idx: int, overlap: int
    ) -> Iterator[tuple[list[StoredMessage], list[StoredMessage]]]:
        return self._items("iter_threads", mailbox, window_idx, overlap)

    def all_messages(self, mailbox: str, first: int = 0) -> Iterator[StoredMessage]:
        """In order of arrival, so that it goes on behind the last one where the owner stops in between."""
        try:
            for message in self._items("all_messages", mailbox, first):
                yield message
                first = message.arrival_ordinal + 1
        except OwnerGone:
            self._next = self._elsewhere()
            yield from self._next.all_messages(mailbox, first)

    def messages_by_key(self, mailbox: str, keys: Iterable[str]) -> dict[str, StoredMessage]:
        return cast("dict[str, StoredMessage]", self._ask("messages_by_key", mailbox, list(keys)))

    def read_view(self, view: str) -> Iterator[RecordBatch]:
        return self._items("read_view", view)

    def answer_sql(self, sql: str, *, row_limit: int = ROW_LIMIT, seconds: float = SECONDS) -> Result:
        return cast("Result", self._ask("answer_sql", sql, row_limit=row_limit, seconds=seconds))

    def checkpoint(self) -> None:
        self._ask("checkpoint")

    @contextmanager
    def cursor(self) -> Iterator[Any]:
        raise StoreError("a store held by another process has no cursor")
        yield

    def require_agreement(self, settings: Settings | None, versions: Versions | None) -> None:
        """The owner checked when it was reached."""

    def _ask(self, name: str, *args: Any, **kwargs: Any) -> Any:
        call = Call(name, args, kwargs)
        return self._asked(call, call.of)

    def _asked(self, call: Call, of: Callable[[Store], Any]) -> Any:
        """The owner's answer, or what ``of`` has from the store that is asked instead."""
        if self._next is None:
            try:
                self._send(call)
                return self._answer().value
            except OwnerGone:
                self._next = self._elsewhere()
        return of(self._next)

    def _items(self, name: str, *args: Any) -> Iterator[Any]:
        """The items of an answer, as they come; the line is free for another call only after the last."""
        call = Call(name, args, {})
        if self._next is None:
            try:
                self._send(call)
                reply = self._answer()
            except OwnerGone:
                self._next = self._elsewhere()
            else:
                while reply.kind == "item":
                    yield reply.value
                    reply = self._answer()
                return
        yield from call.of(self._next)

    def _elsewhere(self) -> Store:
        if self._again is None:
            raise OwnerGone
        self._line.close()
        return self._again()

    def _send(self, message: Hello | Call) -> None:
        try:
            self._line.send(message)
        except OSError as error:
            raise OwnerGone from error

    def _answer(self) -> Reply:
        try:
            reply = self._line.recv()
        except (EOFError, OSError) as error:
            raise OwnerGone from error
        assert isinstance(reply, Reply)
        if reply.kind == "error":
            raise reply.value
        return reply
