"""What the store knows about a batch of mail before it is placed: one set of queries per batch, however large it is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pipeline.arrival.threads import SUBJECT_USES, Known, KnownThread, Needs, SubjectUse, Version
from pipeline.domain import Split
from pipeline.store.connection import store_errors
from pipeline.store.probe import FEW, near, near_few, registered

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def lookup(connection: DuckDBPyConnection, mailbox: str, needs: Needs) -> Known:
    """Everything stored about ``needs``, and every thread that any of it names; of a subject, its newest uses only.

    Versions and subject uses come in the order of their arrival.
    """
    with store_errors("lookup"):
        known = Known()
        known.links = dict(_probe(connection, mailbox, "links", "id", "id, thread_id", needs.ids))
        known.quarantined = dict(_probe(connection, mailbox, "quarantined_ids", "id", "id, thread_id", needs.ids))
        known.versions = _versions(connection, mailbox, needs.base_keys)
        known.subjects = _subjects(connection, mailbox, needs.subject_keys)
        people = _probe(connection, mailbox, "correspondents", "person_key", "person_key", needs.person_keys)
        known.people = {key for (key,) in people}
        threads = {*known.links.values(), *known.quarantined.values()}
        threads.update(version.thread_id for versions in known.versions.values() for version in versions)
        threads.update(use.thread_id for uses in known.subjects.values() for use in uses)
        known.threads = {
            thread_id: KnownThread(thread_id, Split(split), first_ordinal)
            for thread_id, split, first_ordinal in _probe(
                connection, mailbox, "thread_rows", "thread_id", "thread_id, split, first_ordinal", threads
            )
        }
        return known


def _versions(connection: DuckDBPyConnection, mailbox: str, keys: set[str]) -> dict[str, tuple[Version, ...]]:
    columns = "base_key, message_key, date, content_sha, thread_id"
    found = _probe(connection, mailbox, "message_rows", "base_key", columns, keys, "ORDER BY arrival_ordinal")
    versions: dict[str, list[Version]] = defaultdict(list)
    for base_key, message_key, date, content_sha, thread_id in found:
        versions[base_key].append(Version(message_key, date, content_sha, thread_id))
    return {key: tuple(group) for key, group in versions.items()}


def _subjects(connection: DuckDBPyConnection, mailbox: str, keys: set[str]) -> dict[str, tuple[SubjectUse, ...]]:
    newest = (
        "AND mailbox = $mailbox QUALIFY row_number() OVER "
        f"(PARTITION BY subject_norm_key_hash ORDER BY arrival_ordinal DESC) <= {SUBJECT_USES}"
    )
    columns = "subject_norm_key, thread_id, date, arrival_ordinal, participants"
    found = _probe(
        connection, mailbox, "message_rows", "subject_norm_key", columns, keys, "ORDER BY arrival_ordinal", newest
    )
    uses: dict[str, list[SubjectUse]] = defaultdict(list)
    for key, thread_id, date, ordinal, participants in found:
        uses[key].append(SubjectUse(thread_id, date, ordinal, frozenset(participants)))
    return {key: tuple(group) for key, group in uses.items()}


def _probe(
    connection: DuckDBPyConnection,
    mailbox: str,
    table: str,
    key: str,
    columns: str,
    values: Iterable[str],
    last: str = "",
    only: str = "",
) -> list[tuple[Any, ...]]:
    """The rows of a mailbox whose ``key``, the first of the columns, is among ``values``, in an order and, found by hash
    alone, ``only`` those that these clauses say."""
    from pipeline.arrow import pa

    wanted = sorted(values)
    if not wanted:
        return []
    if len(wanted) <= FEW:
        close = connection.execute(
            f"SELECT {columns} FROM {table} WHERE mailbox = $mailbox AND {near_few(table, key, wanted, only)} {last}",
            {"mailbox": mailbox},
        ).fetchall()
        return [row for row in close if row[0] in wanted]
    relation = f"wanted_{key}"
    with registered(connection, relation, pa.table({key: wanted})):
        found: list[tuple[Any, ...]] = connection.execute(
            f"SELECT {columns} FROM {table} WHERE mailbox = $mailbox AND {near(table, key, relation, only)} "
            f"AND {key} IN (SELECT {key} FROM {relation}) {last}",
            {"mailbox": mailbox},
        ).fetchall()
        return found
