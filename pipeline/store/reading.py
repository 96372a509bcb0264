"""Messages as they were stored, words included, read page by page so that no archive is ever in memory as a whole."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.domain import Split, StoredMessage
from pipeline.store.connection import store_errors
from pipeline.store.probe import near, registered

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

PAGE = 1000
"""Messages read at a time; a thread is never divided, so a page may hold one more thread than fits."""

_COLUMNS = (
    "mailbox, message_key, thread_id, split, window_idx, arrival_ordinal, received_at, date, sender_key, sender_name_key, "
    "subject_key, parent_key, bulk, auto, text_sha, own_sha, "
    "(mailbox, message_key) IN (SELECT (mailbox, message_key) FROM erased_rows)"
)
_ALIVE = "(mailbox, message_key) NOT IN (SELECT (mailbox, message_key) FROM erased_rows)"


def iter_threads(
    connection: DuckDBPyConnection, mailbox: str, window_idx: int, overlap: int
) -> Iterator[tuple[list[StoredMessage], list[StoredMessage]]]:
    """Each thread with mail in a window: at most ``overlap`` newest earlier messages, and the window's own.

    Messages come in the order of their arrival, threads in that of their first message in the window: neighbours in time
    are neighbours in the file, so that a page of threads reads few of its blocks. Erased messages are passed over.
    """
    with store_errors("read a window"):
        threads = connection.execute(
            f"SELECT thread_id, count(*) FROM message_rows WHERE mailbox = ? AND window_idx = ? AND {_ALIVE} "
            "GROUP BY thread_id ORDER BY min(arrival_ordinal)",
            [mailbox, window_idx],
        ).fetchall()
    for page in _pages(threads):
        earlier: dict[str, list[StoredMessage]] = defaultdict(list)
        new: dict[str, list[StoredMessage]] = defaultdict(list)
        for message in _threads(connection, mailbox, window_idx, overlap, page):
            (new if message.window_idx == window_idx else earlier)[message.thread_id].append(message)
        for thread_id in page:
            yield earlier[thread_id], new[thread_id]


def all_messages(connection: DuckDBPyConnection, mailbox: str, first: int = 0) -> Iterator[StoredMessage]:
    """Every message of a mailbox from the ordinal ``first`` on, in the order of arrival."""
    with store_errors("read messages"):
        ((last,),) = connection.execute(
            "SELECT coalesce(max(arrival_ordinal), -1) FROM message_rows WHERE mailbox = ?", [mailbox]
        ).fetchall()
    for start in range(first, last + 1, PAGE):
        with store_errors("read messages"):
            found = connection.execute(
                f"SELECT {_COLUMNS} FROM message_rows WHERE mailbox = ? AND arrival_ordinal BETWEEN ? AND ? "
                "ORDER BY arrival_ordinal",
                [mailbox, start, start + PAGE - 1],
            ).fetchall()
        yield from _with_words(connection, found)


def messages_by_key(connection: DuckDBPyConnection, mailbox: str, keys: Iterable[str]) -> dict[str, StoredMessage]:
    """The messages of a mailbox that have these keys, by key; unknown keys are left out."""
    from pipeline.arrow import pa

    wanted = pa.table({"message_key": pa.array(sorted(set(keys)), pa.string())})
    meant = near("message_rows", "message_key", "wanted_keys")
    with store_errors("read messages"), registered(connection, "wanted_keys", wanted):
        found = connection.execute(
            f"SELECT {_COLUMNS} FROM message_rows WHERE mailbox = ? AND {meant} "
            "AND message_key IN (SELECT message_key FROM wanted_keys) ORDER BY arrival_ordinal",
            [mailbox],
        ).fetchall()
    return {message.message_key: message for message in _with_words(connection, found)}


def _pages(threads: Iterable[tuple[str, int]]) -> Iterator[list[str]]:
    page: list[str] = []
    held = 0
    for thread_id, count in threads:
        page.append(thread_id)
        held += count
        if held >= PAGE:
            yield page
            page, held = [], 0
    if page:
        yield page


def _threads(
    connection: DuckDBPyConnection, mailbox: str, window_idx: int, overlap: int, page: Sequence[str]
) -> list[StoredMessage]:
    from pipeline.arrow import pa

    with store_errors("read a window"), registered(connection, "page", pa.table({"thread_id": page})):
        found = connection.execute(
            "WITH chosen AS (SELECT rowid FROM message_rows WHERE mailbox = $mailbox AND window_idx <= $window "
            f"AND {_ALIVE} AND {near('message_rows', 'thread_id', 'page')} "
            "QUALIFY window_idx = $window OR row_number() OVER "
            "(PARTITION BY thread_id, window_idx = $window ORDER BY arrival_ordinal DESC) <= $overlap) "
            f"SELECT {_COLUMNS} FROM message_rows WHERE rowid IN (SELECT rowid FROM chosen) ORDER BY arrival_ordinal",
            {"mailbox": mailbox, "window": window_idx, "overlap": overlap},
        ).fetchall()
    return _with_words(connection, found)


def _with_words(connection: DuckDBPyConnection, found: Sequence[tuple[Any, ...]]) -> list[StoredMessage]:
    """Rows of ``_COLUMNS`` as messages; an erased one has no words and no names, whoever else says the same."""
    alive = [row for row in found if not row[16]]
    texts = _words(connection, "texts", "sha256", "body", {sha for row in alive for sha in row[14:16]})
    people = _words(connection, "people", "key", "value", {key for row in alive for key in row[8:11]})
    messages = []
    for row in found:
        (mailbox, message_key, thread_id, split, window_idx, ordinal, received_at, date) = row[:8]
        (sender_key, name_key, subject_key, parent_key, bulk, auto, text_sha, own_sha, erased) = row[8:]
        address_key = sender_key
        if erased:
            address_key = name_key = subject_key = text_sha = own_sha = None
        messages.append(
            StoredMessage(
                mailbox=mailbox,
                message_key=message_key,
                thread_id=thread_id,
                split=Split(split),
                window_idx=window_idx,
                arrival_ordinal=ordinal,
                received_at=received_at,
                date=date,
                sender_key=sender_key or "",
                sender_name=people.get(name_key, ""),
                sender_address=people.get(address_key, ""),
                subject=people.get(subject_key, ""),
                parent_key=parent_key,
                bulk=bulk,
                auto=auto,
                text=texts.get(text_sha, ""),
                own_text=texts.get(own_sha, ""),
            )
        )
    return messages


def _words(
    connection: DuckDBPyConnection, table: str, key: str, value: str, wanted: set[str | None]
) -> dict[str | None, str]:
    """What ``bodies`` holds for these keys."""
    from pipeline.arrow import pa

    keys = pa.table({key: pa.array(sorted(name for name in wanted if name is not None), pa.string())})
    with store_errors("read texts"), registered(connection, f"wanted_{key}", keys):
        return dict(
            connection.execute(
                f'SELECT "{key}", "{value}" FROM bodies.{table} WHERE {near(f"bodies.{table}", key, f"wanted_{key}")}'
            ).fetchall()
        )
