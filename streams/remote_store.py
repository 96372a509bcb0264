"""A store that another process of this machine holds, used through its owner's socket as if it were open here."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Sequence
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
from streams.owner_socket import Call, Hello, Reply, address, program

if TYPE_CHECKING:
    from pyarrow import RecordBatch

    from pipeline.arrival.threads import Known, Needs
    from pipeline.domain import StoredMessage


class RemoteStore(Store):
    """Every call is carried out by the owner, who checks and writes as for itself. Opened to write, the store is this
    client's alone until it is closed."""

    def __init__(self, line: Connection, home: Home) -> None:
        self._line = line
        self._people = PeopleKey.read(home.people_key)

    @classmethod
    def reach(cls, home: Home, settings: Settings | None, versions: Versions | None, *, writes: bool) -> RemoteStore | None:
        """The store of a home by its owner's socket; None when no owner answers there. Raises what the owner says."""
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with address(home) as where:
                client.connect(where)
        except OSError:
            client.close()
            return None
        store = cls(Connection(client.detach()), home)
        try:
            store._line.send(Hello(program(), writes, settings, versions))
            store._answer()
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        self._line.close()

    def owner_state(self) -> Any:
        """What the owner says of itself."""
        return self._ask("state")

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
        return self._items("all_messages", mailbox, first)

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
        self._send(Call(name, args, kwargs))
        return self._answer().value

    def _items(self, name: str, *args: Any) -> Iterator[Any]:
        """The items of an answer, as they come; the line is free for another call only after the last."""
        self._send(Call(name, args, {}))
        while (reply := self._answer()).kind == "item":
            yield reply.value

    def _send(self, call: Call) -> None:
        try:
            self._line.send(call)
        except OSError as error:
            raise _gone() from error

    def _answer(self) -> Reply:
        try:
            reply = self._line.recv()
        except (EOFError, OSError) as error:
            raise _gone() from error
        assert isinstance(reply, Reply)
        if reply.kind == "error":
            raise reply.value
        return reply


def _gone() -> StoreError:
    return StoreError("the daemon that holds the store has stopped", hint="run the same command again")
