"""Which bases and adapters learned from mail that is erased, and who may answer in their place."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

from pipeline.domain import Split
from pipeline.home import Home, sha256_folder
from pipeline.store import Store
from pipeline.store.rows import AdapterRow, ChunkRow, RequestRow
from registry.decide import journal
from registry.journal import Status
from registry.lineage import descendants


@dataclass(frozen=True, slots=True)
class Tainted:
    """``bases`` are built-in ones by id, ``adapters`` all that trained on it or continue one that did, or stand on such a
    base. ``champion`` answered so far; ``successor`` is the nearest clean one that may (None: the bare base, or nobody
    where that is tainted too)."""

    bases: tuple[str, ...]
    adapters: tuple[str, ...]
    champion: str | None
    successor: str | None


def tainted_by(store: Store, home: Home, mailbox: str, chunks: Collection[ChunkRow]) -> Tainted:
    """What learns from ``chunks`` of a mailbox and is not tainted yet. A chunk that was only read as context counts; one
    that only measured or chose does not."""
    ids = [chunk.chunk_id for chunk in chunks]
    taught = store.query(
        "SELECT DISTINCT adapter_id FROM trained_rows WHERE mailbox = ? AND list_contains(?, chunk_id)", [mailbox, ids]
    )
    bases = _bases(store, mailbox, chunks)
    rows = {row.adapter_id: row for row in store.fetch(AdapterRow, "mailbox = ?", [mailbox], "created_at, adapter_id")}
    standing = {one for one, row in rows.items() if row.base_id in bases}
    reached = descendants(store, {*(adapter_id for (adapter_id,) in taught), *standing})
    state = journal(store)
    fresh = tuple(
        one for one in rows if one in reached and one in state.adapters and state.adapters[one].status is not Status.TAINTED
    )
    champion = state.champion(mailbox)
    successor = champion if champion not in fresh else _successor(store, home, mailbox, champion, reached)
    return Tainted(bases, fresh, champion, successor)


def _bases(store: Store, mailbox: str, chunks: Collection[ChunkRow]) -> tuple[str, ...]:
    """The built-in bases of a mailbox: all are made of the train split of its first shard. None unless that holds one of
    the chunks."""
    first = store.scalar("SELECT min(window_idx) FROM shard_rows WHERE mailbox = ?", [mailbox])
    if not any(chunk.window_idx == first and chunk.split == Split.TRAIN.value for chunk in chunks):
        return ()
    asked = [json.loads(row.request)["base"] for row in store.fetch(RequestRow, "mailbox = ?", [mailbox])]
    return tuple(dict.fromkeys(base["base_id"] for base in asked if base["kind"] == "builtin"))


def _successor(store: Store, home: Home, mailbox: str, champion: str | None, tainted: Collection[str]) -> str | None:
    """The nearest ancestor that once was champion, is clean and whole; else the newest such former champion."""
    rows = {row.adapter_id: row for row in store.fetch(AdapterRow, "mailbox = ?", [mailbox])}
    above, ancestor = [], champion
    while ancestor is not None and ancestor in rows:
        above.append(ancestor)
        ancestor = rows[ancestor].parent_adapter
    returnable = [one for one in journal(store).returnable(mailbox) if one not in tainted and one in rows]
    for one in [*(one for one in above if one in returnable), *returnable]:
        folder = home.adapter(one)
        if folder.is_dir() and sha256_folder(folder) == rows[one].sha256:
            return one
    return None
