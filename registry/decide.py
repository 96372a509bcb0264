"""What follows from a finished run: its evidence, verdict and journal entries, in one transaction.

The receipt is written first and its digest goes into that transaction, so a crash anywhere leaves a run undecided, or
decided as a whole; deciding again is no second decision.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pipeline.config.settings import Settings
from pipeline.errors import RegistryError
from pipeline.events import AdapterPromoted, Event
from pipeline.home import Home, sha256_folder
from pipeline.ranges import ranges
from pipeline.runs.requests import RunRequest, RunResult
from pipeline.store import Store
from pipeline.store.rows import AdapterRow, JournalRow, Row, RunEventRow
from registry.evidence import gather
from registry.gate import Outcome, Verdict, decide
from registry.journal import Happening, RegistryState, Status, advance, append_event, fold
from registry.late import late_figures
from registry.objections import Objection, Says
from registry.receipt import build_receipt, write_receipt
from registry.records import rows_of

DECIDED = (*(outcome.value for outcome in Outcome), Happening.FAILED.value)
"""Statuses of a run that end it."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of a run. ``status`` is promoted, rejected, abstained or failed; ``verdict`` is None for a failed one."""

    run_id: str
    mailbox: str
    adapter_id: str
    status: str
    reasons: tuple[str, ...]
    verdict: Verdict | None
    at: datetime

    def __str__(self) -> str:
        return f"run {self.run_id} {self.status}: {'; '.join(self.reasons)}"


def decide_run(
    store: Store, home: Home, request: RunRequest, result: RunResult, settings: Settings, now: datetime, actor: str
) -> Decision:
    """Records a finished run and its verdict; of a run that was decided before, returns that decision.

    Raises ``RegistryError``, ``RunError`` or ``ShardError``, with nothing recorded, when what the run left is not whole.
    """
    made = decision_of(store, request)
    if made is not None:
        return made
    _check_result(home, request, result)
    state = journal(store)
    evidence = gather(
        home,
        request,
        result,
        reigning(store, state, request),
        objections=_tainted_lineage(store, state, request),
        late=late_figures(store, request, result, settings),
    )
    verdict = decide(evidence, settings.gate)
    above = recorded_receipt(store, request.parent.run_id) if request.parent else None
    receipt = build_receipt(home, request, result, verdict, now, parent_receipt=above or "")
    receipt_sha256 = write_receipt(home, receipt)
    entries = _entries(
        state,
        request,
        [
            (Happening.REGISTERED, f"run {request.run_id} on new windows {ranges(request.new_windows)}"),
            (Happening.EVALUATED, f"checkpoint {result.checkpoint}, {result.steps} steps, {result.tokens} tokens"),
            (Happening(verdict.outcome.value), "; ".join(verdict.reasons)),
        ],
        actor,
        now,
    )
    detail = json.dumps(
        {"verdict": json.loads(verdict.to_json()), "checkpoint": result.checkpoint, "receipt_sha256": receipt_sha256}
    )
    rows: list[Row] = [
        *rows_of(store, home, request, result, settings.cost),
        *entries,
        RunEventRow(request.run_id, verdict.outcome.value, detail, now),
    ]
    if verdict.outcome is Outcome.PROMOTED:
        rows += store.outbox_rows([promotion_event(home, entries[-1], result.adapter_sha256)])
    store.append(rows)
    return Decision(
        request.run_id, request.mailbox, result.adapter_id, verdict.outcome.value, verdict.reasons, verdict, now
    )


def fail_run(store: Store, request: RunRequest, reason: str, now: datetime, actor: str) -> Decision:
    """Records that a run failed for good; its windows join the next claim."""
    made = decision_of(store, request)
    if made is not None:
        return made
    entries = _entries(journal(store), request, [(Happening.FAILED, reason)], actor, now)
    store.append([*entries, RunEventRow(request.run_id, Happening.FAILED.value, json.dumps({"reason": reason}), now)])
    return Decision(request.run_id, request.mailbox, request.adapter_id, Happening.FAILED.value, (reason,), None, now)


def decision_of(store: Store, request: RunRequest) -> Decision | None:
    """The decision on a run, or None while there is none."""
    marks = ", ".join("?" for _ in DECIDED)
    rows = store.fetch(RunEventRow, f"run_id = ? AND status IN ({marks})", [request.run_id, *DECIDED])
    if not rows:
        return None
    row, detail = rows[0], json.loads(rows[0].detail)
    verdict = Verdict.from_json(json.dumps(detail["verdict"])) if "verdict" in detail else None
    reasons = verdict.reasons if verdict else (str(detail["reason"]),)
    return Decision(request.run_id, request.mailbox, request.adapter_id, row.status, reasons, verdict, row.at)


def recorded_receipt(store: Store, run_id: str) -> str | None:
    """The sha256 that was recorded of a decided run's receipt; None where there is none."""
    for row in store.fetch(RunEventRow, "run_id = ?", [run_id]):
        found = json.loads(row.detail).get("receipt_sha256")
        if found is not None:
            return str(found)
    return None


def journal(store: Store) -> RegistryState:
    """The registry as it stands, of all mailboxes."""
    return fold(store.fetch(JournalRow, "true", [], "ordinal"))


def promotion_event(home: Home, entry: JournalRow, sha256: str) -> Event:
    """The event that tells deploy targets of a new champion, or of one that is returned to."""
    payload = AdapterPromoted(
        mailbox=entry.mailbox,
        adapter_id=entry.adapter_id,
        path=home.adapter(entry.adapter_id).relative_to(home.root).as_posix(),
        sha256=sha256,
        journal_ordinal=entry.ordinal,
    )
    return Event.of(payload, at=entry.at)


def _entries(
    state: RegistryState, request: RunRequest, told: Sequence[tuple[Happening, str]], actor: str, now: datetime
) -> list[JournalRow]:
    entries: list[JournalRow] = []
    for event, reason in told:
        entry = append_event(
            state,
            mailbox=request.mailbox,
            adapter_id=request.adapter_id,
            event=event,
            reason=reason,
            actor=actor,
            at=now,
        )
        entries.append(entry)
        state = advance(state, entry)
    return entries


def _check_result(home: Home, request: RunRequest, result: RunResult) -> None:
    if (result.run_id, result.adapter_id) != (request.run_id, request.adapter_id):
        raise RegistryError(f"the result in run {request.run_id} is of run {result.run_id}", hint="delete that folder")
    folder = home.adapter(result.adapter_id)
    if not folder.is_dir() or sha256_folder(folder) != result.adapter_sha256:
        raise RegistryError(
            f"{folder} is not what run {request.run_id} recorded",
            hint=f"delete it and {home.run(request.run_id) / 'result.json'}, and run `mailtide retrain --confirm` again",
        )


def reigning(store: Store, state: RegistryState, request: RunRequest) -> str | None:
    """The champion that the gate has to compare with: one that stands on another base cannot be, as no loss is common,
    so choosing a base in the settings is choosing to start over from it."""
    champion = state.champion(request.mailbox)
    if champion is None:
        return None
    rows = store.fetch(AdapterRow, "adapter_id = ?", [champion])
    return champion if rows and rows[0].base_id == request.base.base_id else None


def _tainted_lineage(store: Store, state: RegistryState, request: RunRequest) -> list[Objection]:
    """Objects to what continues an adapter that was tainted while the run trained."""
    parents = {row.adapter_id: row.parent_adapter for row in store.fetch(AdapterRow, "mailbox = ?", [request.mailbox])}
    ancestor = request.parent.adapter_id if request.parent else None
    while ancestor is not None:
        standing = state.adapters.get(ancestor)
        if standing is not None and standing.status is Status.TAINTED:
            why = f"it continues {ancestor}, which learned from mail that was erased since"
            return [Objection("lineage", 1, None, None, 0, 0, Says.OBJECTS, why)]
        ancestor = parents.get(ancestor)
    return []
