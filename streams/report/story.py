"""What a run's report tells, gathered from the store and the run's folder; nothing is computed by a model."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.chunking.tier_limits import TierUse
from pipeline.errors import RunError
from pipeline.home import Home
from pipeline.runs.plan import COVERAGE, MANIFEST
from pipeline.runs.replyfiles import REPLIES, Given, ReplyLoss, read_reply_losses
from pipeline.runs.requests import RunRequest, RunResult, read_result
from pipeline.sampling.coverage import read_coverage
from pipeline.sampling.manifest import read_manifest
from pipeline.store import Store
from pipeline.store.rows import AdapterRow, PersonRow
from registry.decide import Decision, decision_of
from registry.decided import request_of
from streams.inspecting.data_report import DataReport, data_report
from streams.runs.course import course_of

EXAMPLES = 5
SENDERS = 12
ANCESTORS = 8
WINDOWS = 24


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail as an example quotes it."""

    sender: str
    at: datetime
    subject: str
    words: str


@dataclass(frozen=True, slots=True)
class Example:
    """A real reply, the mails that were found for it, what the adapter wrote (empty where it was not asked to), and nats
    per token of the real one by what was given."""

    reply: Mail
    found: tuple[Mail, ...]
    written: str
    losses: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Heat:
    """Loss on val per window (columns) of each adapter (rows, oldest first), on the chunks that the run was measured on, in
    nats per token; None where an adapter was not measured."""

    windows: tuple[int, ...]
    adapters: tuple[str, ...]
    cells: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """Of a sender's chunks that earlier runs learned: how many this run rehearsed, and how many any run has."""

    sender: str
    learned: int
    this_run: int
    ever: int


@dataclass(frozen=True, slots=True)
class Story:
    """Everything on the page. ``steps`` are the lines of ``metrics.jsonl``, ``results`` is ``eval_results.json``;
    ``decision`` is None while there is none, ``tiers`` are empty where the settings limited no quality tier, ``course``
    where training went straight to its end."""

    request: RunRequest
    result: RunResult
    decision: Decision | None
    steps: Sequence[Mapping[str, Any]]
    results: Mapping[str, Any]
    heat: Heat | None
    rehearsed: tuple[Rehearsed, ...]
    data: DataReport
    tiers: tuple[TierUse, ...]
    examples: Mapping[str, tuple[Example, ...]]
    course: tuple[str, ...]


def gather_story(store: Store, home: Home, named: str) -> Story:
    """The story of a finished run, by its id or its adapter's. Raises ``UsageError`` for an unknown one, ``RunError`` for
    one that left nothing to tell of."""
    request = request_of(store, named)
    folder = home.run(request.run_id)
    try:
        result = read_result(folder)
        results = json.loads((folder / "eval_results.json").read_bytes())
        steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    except (RunError, OSError, ValueError) as error:
        raise RunError(
            f"run {request.run_id} left nothing to report: it has not finished, or failed", hint="see `mailtide runs`"
        ) from error
    return Story(
        request=request,
        result=result,
        decision=decision_of(store, request),
        steps=steps,
        results=results,
        heat=_heat(store, request, result),
        rehearsed=_rehearsed(store, folder / COVERAGE),
        data=data_report(store, request.mailbox),
        tiers=read_manifest(folder / MANIFEST).tiers,
        examples=_examples(store, request, result, folder),
        course=course_of(home, request, result),
    )


def _heat(store: Store, request: RunRequest, result: RunResult) -> Heat | None:
    base = f"base:{request.base.base_id}"
    adapters = [base, *_lineage(store, request)]
    rows = store.query(
        f"""
        WITH own AS (
            SELECT chunk_id, max(eval_version) AS eval_version FROM loss_rows
            WHERE mailbox = $1 AND adapter_id = $2 AND checkpoint = $3 AND split = 'val' GROUP BY chunk_id
        ), served AS (
            SELECT r.adapter_id, e.detail->>'checkpoint' AS checkpoint FROM requests r JOIN run_events e USING (run_id)
            WHERE e.detail->>'checkpoint' IS NOT NULL
            UNION SELECT $2, $3 UNION SELECT '{base}', ''
        )
        SELECT l.adapter_id, c.window_idx, sum(l.nll) / sum(l.n_tokens)
        FROM loss_rows l JOIN own USING (chunk_id, eval_version) JOIN served s USING (adapter_id, checkpoint)
        JOIN chunk_rows c ON c.mailbox = l.mailbox AND c.chunk_id = l.chunk_id
        WHERE l.mailbox = $1 AND NOT EXISTS (FROM exclusion_rows x WHERE x.mailbox = c.mailbox
            AND x.thread_id = c.thread_id AND (x.chunk_id IS NULL OR x.chunk_id = c.chunk_id))
        GROUP BY ALL
        """,
        [request.mailbox, request.adapter_id, result.checkpoint],
    )
    known = {(adapter_id, window): float(loss) for adapter_id, window, loss in rows}
    windows = sorted({window for _, window in known})[-WINDOWS:]
    shown = [name for name in adapters if any(name == other for other, _ in known)]
    if not windows:
        return None
    cells = tuple(tuple(known.get((name, window)) for window in windows) for name in shown)
    return Heat(tuple(windows), tuple(shown), cells)


def _lineage(store: Store, request: RunRequest) -> list[str]:
    """The adapter and what it continued, oldest first, the newest :data:`ANCESTORS` of them."""
    parents = {row.adapter_id: row.parent_adapter for row in store.fetch(AdapterRow, "mailbox = ?", [request.mailbox])}
    chain = [request.adapter_id]
    above = request.parent.adapter_id if request.parent else None
    while above is not None and above not in chain:
        chain.append(above)
        above = parents.get(above)
    return chain[:ANCESTORS][::-1]


def _rehearsed(store: Store, path: Path) -> tuple[Rehearsed, ...]:
    """The senders of most chunks learned before, and the rest together."""
    learned: Counter[str] = Counter()
    now: Counter[str] = Counter()
    ever: Counter[str] = Counter()
    for row in read_coverage(path).to_pylist():
        if row["new_times"] > row["run_new"]:
            learned[row["sender"]] += 1
            now[row["sender"]] += row["run_rehearsal"] > 0
            ever[row["sender"]] += row["rehearsal_times"] > 0
    most = [sender for sender, _ in learned.most_common(SENDERS)]
    names: dict[str, str] = {}
    if most:
        marks = ", ".join("?" for _ in most)
        names = {row.key: row.value for row in store.fetch(PersonRow, f'"key" IN ({marks})', most)}
    told = [Rehearsed(names.get(one, "somebody erased"), learned[one], now[one], ever[one]) for one in most]
    rest = [one for one in learned if one not in most]
    if rest:
        sums = [sum(counter[one] for one in rest) for counter in (learned, now, ever)]
        told.append(Rehearsed(f"{len(rest)} others", *sums))
    return tuple(told)


def _examples(store: Store, request: RunRequest, result: RunResult, folder: Path) -> Mapping[str, tuple[Example, ...]]:
    """Val replies that the adapter foretold best, worst, and as a hash has it. Words come from the store as it is now:
    those of an erased mail are nowhere."""
    losses: dict[str, dict[str, ReplyLoss]] = {}
    for loss in read_reply_losses(folder / REPLIES):
        if (loss.adapter_id, loss.checkpoint, loss.split) == (request.adapter_id, result.checkpoint, "val"):
            losses.setdefault(loss.message_key, {})[loss.given] = loss
    keys = sorted({key for key in losses} | {mail for own in losses.values() for one in own.values() for mail in one.mails})
    mails = {
        key: Mail(mail.sender_name or mail.sender_address, mail.date or mail.received_at, mail.subject, words)
        for key, mail in store.messages_by_key(request.mailbox, keys).items()
        if (words := (mail.own_text or mail.text).strip())
    }
    written = _written(folder, request, result)
    whole = [key for key, own in losses.items() if key in mails and Given.RETRIEVED in own]
    ranked = sorted(whole, key=lambda key: losses[key][Given.RETRIEVED].nll / losses[key][Given.RETRIEVED].n_tokens)
    drawn = sorted(whole, key=lambda key: hashlib.sha256(f"example:{key}".encode()).digest())

    def example(key: str) -> Example:
        found = [mails[one] for one in reversed(losses[key][Given.RETRIEVED].mails) if one in mails]
        told = {given: one.nll / one.n_tokens for given, one in losses[key].items()}
        return Example(mails[key], tuple(found), written.get(key, ""), told)

    few = max(1, min(EXAMPLES, len(whole) // 2))
    chosen = {"best": ranked[:few], "worst": ranked[::-1][:few], "random": drawn[:EXAMPLES]}
    return {name: tuple(map(example, some)) for name, some in chosen.items() if some}


def _written(folder: Path, request: RunRequest, result: RunResult) -> dict[str, str]:
    """What the adapter wrote, by reply; the file may be gone."""
    import pyarrow.parquet as pq

    path = folder / "written.parquet"
    if not path.is_file():
        return {}
    rows = pq.read_table(path, columns=["adapter_id", "checkpoint", "message_key", "text"]).to_pylist()
    own = (request.adapter_id, result.checkpoint)
    return {row["message_key"]: row["text"] for row in rows if (row["adapter_id"], row["checkpoint"]) == own}
