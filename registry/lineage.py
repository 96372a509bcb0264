"""Which mail made an adapter, and which adapters a mail made: the store's records read both ways."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.runs.requests import RunRequest
from pipeline.store import Store
from pipeline.store.rows import AdapterRow, RequestRow, ShardRow
from registry.named import no_adapter


@dataclass(frozen=True, slots=True)
class Step:
    """One run of a lineage: what it took as new, and how many chunks it trained as new and rehearsed. An ``imported`` one
    was made in another home, of whose mail nothing is known here."""

    adapter_id: str
    run_id: str
    parent_adapter: str | None
    windows: tuple[int, ...]
    shards: tuple[ShardRow, ...]
    new_chunks: int
    rehearsed_chunks: int
    imported: bool = False


@dataclass(frozen=True, slots=True)
class Lineage:
    """From an adapter (first) up to the one that began at the base (last)."""

    mailbox: str
    base_id: str
    steps: tuple[Step, ...]

    @property
    def windows(self) -> tuple[int, ...]:
        """Every window that was new to some run of the lineage, in order."""
        return tuple(sorted({window for step in self.steps for window in step.windows}))


@dataclass(frozen=True, slots=True)
class Lesson:
    """A message in a chunk that was trained. ``as_context``: only read there, before the text that was learned."""

    message_key: str
    chunk_id: str
    adapter_id: str
    role: str
    times: int
    as_context: bool


@dataclass(frozen=True, slots=True)
class Learner:
    """An adapter that learned from a message: ``itself`` in its own run, or else by continuing one that did."""

    adapter_id: str
    itself: bool
    as_context: bool


def lineage(store: Store, adapter_id: str) -> Lineage:
    """The adapter's way up to its base; raises ``UsageError`` when there is no such adapter."""
    adapters = _adapters(store)
    if adapter_id not in adapters:
        raise no_adapter(adapter_id)
    steps: list[Step] = []
    here: AdapterRow | None = adapters[adapter_id]
    while here is not None:
        steps.append(_step(store, here))
        here = adapters[here.parent_adapter] if here.parent_adapter else None
    return Lineage(adapters[adapter_id].mailbox, adapters[adapter_id].base_id, tuple(steps))


def descendants(store: Store, adapter_ids: Iterable[str]) -> frozenset[str]:
    """These adapters and all that continue one of them, over any number of runs."""
    children = defaultdict(list)
    for row in _adapters(store).values():
        if row.parent_adapter is not None:
            children[row.parent_adapter].append(row.adapter_id)
    found: set[str] = set()
    waiting = list(adapter_ids)
    while waiting:
        adapter_id = waiting.pop()
        if adapter_id not in found:
            found.add(adapter_id)
            waiting += children[adapter_id]
    return frozenset(found)


def lessons(store: Store, adapter_id: str) -> list[Lesson]:
    """Every message that the adapter's lineage trained on, chunk by chunk, the adapter's own run first."""
    found: list[Lesson] = []
    for step in lineage(store, adapter_id).steps:
        found += _lessons(store, "t.adapter_id = ?", [step.adapter_id])
    return found


def learners(store: Store, mailbox: str, message_key: str) -> list[Learner]:
    """Adapters that learned from a message, themselves or through one they continue, in order of their making.

    The built-in base is not among them: which threads it read is in its own record.
    """
    own = _lessons(
        store,
        "t.mailbox = ? AND list_contains(c.message_keys, ?)",
        [mailbox, message_key],
        message_key=message_key,
    )
    taught = {lesson.adapter_id for lesson in own}
    beyond_context = {lesson.adapter_id for lesson in own if not lesson.as_context}
    reached = descendants(store, taught)
    more_than_context = descendants(store, beyond_context)
    return [
        Learner(row.adapter_id, row.adapter_id in taught, row.adapter_id not in more_than_context)
        for row in _adapters(store).values()
        if row.adapter_id in reached
    ]


def _adapters(store: Store) -> dict[str, AdapterRow]:
    return {row.adapter_id: row for row in store.fetch(AdapterRow, order="created_at, adapter_id")}


def _step(store: Store, row: AdapterRow) -> Step:
    asked = store.fetch(RequestRow, "run_id = ?", [row.run_id])
    if not asked:
        return Step(row.adapter_id, row.run_id, row.parent_adapter, (), (), 0, 0, imported=True)
    request = RunRequest.model_validate_json(asked[0].request)
    windows = tuple(request.new_windows)
    shards = {shard.window_idx: shard for shard in store.fetch(ShardRow, "mailbox = ?", [row.mailbox])}
    counts = dict(
        store.query("SELECT role, count(*) FROM trained_rows WHERE adapter_id = ? GROUP BY role", [row.adapter_id])
    )
    return Step(
        adapter_id=row.adapter_id,
        run_id=row.run_id,
        parent_adapter=row.parent_adapter,
        windows=windows,
        shards=tuple(shards[window] for window in windows),
        new_chunks=counts.get("new", 0),
        rehearsed_chunks=counts.get("rehearsal", 0),
    )


def _lessons(store: Store, where: str, params: list[object], *, message_key: str | None = None) -> list[Lesson]:
    rows = store.query(
        f"""
        SELECT c.message_keys, c.n_context, c.chunk_id, t.adapter_id, t.role, t.times
        FROM trained_rows AS t JOIN chunk_rows AS c ON c.mailbox = t.mailbox AND c.chunk_id = t.chunk_id
        WHERE {where} ORDER BY c.window_idx, c.chunk_id, t.adapter_id
        """,
        params,
    )
    return [
        Lesson(key, chunk_id, adapter_id, role, times, as_context=place < n_context)
        for keys, n_context, chunk_id, adapter_id, role, times in rows
        for place, key in enumerate(keys)
        if message_key is None or key == message_key
    ]
