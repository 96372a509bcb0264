"""From what is asked for to everything that goes with it: read only, so that people can look before they confirm."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.home import Home
from pipeline.runs.replyfiles import REPLIES, read_reply_losses
from pipeline.store import Store
from pipeline.store.rows import ChunkRow, DeadLetterRow, ErasureRow, FeedbackRow, MessageRow, RawRow, RequestRow, TextRow
from registry.tainting import Tainted, tainted_by
from streams.erasure.asked import Asked, Kind, is_meant, meant, unknown
from streams.erasure.plan import Plan
from streams.erasure.quotes import Traces, find
from streams.report.writing import REPORT
from streams.runs.claims import undecided

CLAIMS = "claims"


def plan_erasure(store: Store, home: Home, asked: Asked, now: datetime) -> Plan:
    """What erasing would take. Raises ``UsageError`` where nothing is meant, ``NothingToDo`` where it is erased already."""
    mailbox, names = asked.mailbox, asked.kind is Kind.SENDER
    keys = meant(store, asked)
    found = find(store, mailbox, keys, names=names)
    keys += found.copies
    letters = [row for row in _letters(store, mailbox) if is_meant(_raw(store, row), asked, keys, store.people)]
    claims = [file.name for file in _claims(home) if is_meant(file.read_bytes(), asked, keys, store.people)]
    if not (keys or letters or claims):
        raise unknown(asked)
    rows = _messages(store, mailbox, keys)
    chunks = _chunks(store, mailbox, keys)
    ids = {chunk.chunk_id for chunk in chunks}
    tainted = tainted_by(store, home, mailbox, chunks)
    tainted = _fresh(store, mailbox, tainted)
    pending = undecided(store, mailbox)
    touched = {chunk.window_idx for chunk in chunks}
    withdrawn = pending is not None and not touched.isdisjoint(shard.window_idx for shard in pending.shards)
    runs = [row for row in store.fetch(RequestRow, "mailbox = ?", [mailbox]) if home.run(row.run_id).is_dir()]
    trained = [row.run_id for row in runs if row.adapter_id in tainted.adapters or _trains(home, row.run_id, ids)]
    traces = Traces(list(store.messages_by_key(mailbox, keys).values()), names=names)
    corrections = _corrections(store, mailbox, tainted, traces)
    target = asked.target(store.people)
    name = hashlib.sha256("\0".join((mailbox, asked.kind.value, target, *sorted(keys), now.isoformat())).encode())
    return Plan(
        erasure_id=f"e{name.hexdigest()[:12]}",
        mailbox=mailbox,
        kind=asked.kind,
        target=target,
        asked_at=now,
        messages=tuple(keys),
        chunks={idx: tuple(one.chunk_id for one in chunks if one.window_idx == idx) for idx in sorted(touched)},
        texts=_texts(rows, _messages(store, mailbox, found.quoting), corrections),
        people=tuple(sorted({key for row in rows for key in _people(row)})),
        raws=tuple(sorted({row.raw_sha for row in letters if row.raw_sha})),
        dead_letters=tuple(row.id for row in letters),
        claims=tuple(sorted(claims)),
        feedback=tuple(row.feedback_id for row in corrections),
        quoting=found.quoting,
        repeating=found.repeating,
        runs=tuple(trained),
        written=tuple(row.run_id for row in runs if row.run_id in trained or _read(home, row.run_id, set(keys))),
        reports=tuple(row.run_id for row in runs if (home.run(row.run_id) / REPORT).exists()),
        withdrawn=pending.run_id if pending is not None and withdrawn else None,
        adapters=tainted.adapters,
        bases=tainted.bases,
        champion=tainted.champion,
        successor=tainted.successor,
    )


def plans(store: Store, where: str = "", params: Sequence[object] = ()) -> list[Plan]:
    """The plans of erasures that were asked for, oldest first."""
    return [Plan.model_validate_json(row.plan) for row in store.fetch(ErasureRow, where, params)]


def unfinished(store: Store) -> list[Plan]:
    """Those that have not reached every place yet."""
    return plans(store, "erasure_id NOT IN (SELECT erasure_id FROM erasure_ends)")


def _fresh(store: Store, mailbox: str, tainted: Tainted) -> Tainted:
    """Without the bases that an earlier erasure took."""
    before = {base for plan in plans(store, "mailbox = ?", [mailbox]) for base in plan.bases}
    bases = tuple(base for base in tainted.bases if base not in before)
    return Tainted(bases, tainted.adapters, tainted.champion, tainted.successor)


def _messages(store: Store, mailbox: str, keys: Sequence[str]) -> list[MessageRow]:
    return store.fetch(MessageRow, "mailbox = ? AND list_contains(?, message_key)", [mailbox, list(keys)])


def _chunks(store: Store, mailbox: str, keys: Sequence[str]) -> list[ChunkRow]:
    """Every chunk that holds one of the messages, be it as context."""
    return store.fetch(
        ChunkRow, "mailbox = ? AND list_has_any(message_keys, ?)", [mailbox, list(keys)], "window_idx, chunk_id"
    )


def _texts(
    rows: Iterable[MessageRow], quoting: Iterable[MessageRow], corrections: Iterable[FeedbackRow]
) -> dict[str, bool]:
    own = {sha: False for row in rows for sha in (row.text_sha, row.own_sha) if sha}
    anyway = {row.text_sha: True for row in quoting if row.text_sha}
    return {**own, **anyway, **{row.correction_sha: True for row in corrections if row.correction_sha}}


def _people(row: MessageRow) -> list[str]:
    return [key for key in (row.sender_key, row.sender_name_key, row.subject_key) if key]


def _letters(store: Store, mailbox: str) -> list[DeadLetterRow]:
    return store.fetch(DeadLetterRow, "mailbox = ? AND raw_sha IS NOT NULL", [mailbox])


def _raw(store: Store, row: DeadLetterRow) -> bytes:
    found = store.fetch(RawRow, "sha256 = ?", [row.raw_sha])
    return found[0].body if found else b""


def _claims(home: Home) -> list[Path]:
    return sorted(file for file in (home.root / CLAIMS).glob("*/*") if file.is_file())


def _trains(home: Home, run_id: str, chunks: set[str]) -> bool:
    """Whether one of the chunks is in the run's manifest: at least one of its checkpoints may have read it."""
    path = home.run(run_id) / "manifest.parquet"
    if not chunks or not path.is_file():
        return False
    ids = pq.read_table(path, columns=["chunk_id"])["chunk_id"]
    return bool(pc.any(pc.is_in(ids, value_set=pa.array(sorted(chunks), pa.string()))).as_py())


def _read(home: Home, run_id: str, keys: set[str]) -> bool:
    """Whether the run's replies answer one of the messages, or were given one to read."""
    losses = read_reply_losses(home.run(run_id) / REPLIES)
    return any(loss.message_key in keys or not keys.isdisjoint(loss.mails) for loss in losses)


def _corrections(store: Store, mailbox: str, tainted: Tainted, traces: Traces) -> list[FeedbackRow]:
    """Corrected replies that may repeat what goes: to answers of tainted adapters, or by their words."""
    rows = store.fetch(FeedbackRow, "mailbox = ? AND correction_sha IS NOT NULL", [mailbox])
    texts = {
        row.sha256: row.body
        for row in store.fetch(TextRow, "list_contains(?, sha256)", [[row.correction_sha for row in rows]])
    }
    return [
        row
        for row in rows
        if row.correction_sha in texts
        and (row.adapter_id in tainted.adapters or traces.stand_in(texts[str(row.correction_sha)]))
    ]
