"""The decision to erase, as one transaction: from then on nothing erased is read, trained on, quoted or served again, and
what is left to do is known, whatever happens to the process."""

from __future__ import annotations

import json

from pipeline.home import Home
from pipeline.runs.runfiles import ERASED
from pipeline.store import Store
from pipeline.store.rows import (
    AdapterRow,
    ErasedRow,
    ErasureRow,
    ExclusionRow,
    JournalRow,
    RequestRow,
    Row,
    RunEventRow,
)
from registry.decide import journal, promotion_event
from registry.journal import Happening, advance, append_event
from streams.erasure.plan import Plan


def note(store: Store, home: Home, plan: Plan, actor: str) -> None:
    """Writes down the plan, the tombstone of its messages, the exclusion of its chunks, the taint of what learned from
    them, the failure of the run that would have, and who answers now, with the event that tells deploy targets."""
    reason = f"{ERASED}{plan.erasure_id}"
    since = _open_window(store, plan.mailbox)
    told = f"{len(plan.messages)} messages erased on request (by {plan.kind}), {plan.erasure_id}"
    entries = [(Happening.ERASED, "", told)]
    if plan.withdrawn is not None:
        entries.append(
            (Happening.FAILED, _adapter_of(store, plan.withdrawn), f"withdrawn: mail that it reads was {reason}")
        )
    entries += [(Happening.TAINTED, adapter, f"it learned from mail that was {reason}") for adapter in plan.adapters]
    if plan.successor is not None and plan.successor != plan.champion:
        entries.append((Happening.ROLLED_BACK, plan.successor, f"{plan.champion} learned from mail that was {reason}"))
    journalled = _journalled(store, plan, entries, actor)
    rows: list[Row] = [
        ErasureRow(plan.erasure_id, plan.mailbox, plan.kind.value, plan.model_dump_json(), plan.asked_at),
        *(ErasedRow(plan.mailbox, key, plan.erasure_id) for key in plan.messages),
        *(
            ExclusionRow(plan.mailbox, chunk_id.rsplit(":", 2)[0], chunk_id, reason, since, plan.asked_at)
            for chunk_id in sorted(plan.chunk_ids)
        ),
        *journalled,
    ]
    if plan.withdrawn is not None:
        detail = json.dumps({"reason": f"withdrawn: mail that it reads was {reason}"})
        rows.append(RunEventRow(plan.withdrawn, Happening.FAILED.value, detail, plan.asked_at))
    if journalled[-1].event == Happening.ROLLED_BACK.value:
        sha256 = store.fetch(AdapterRow, "adapter_id = ?", [plan.successor])[0].sha256
        rows += store.outbox_rows([promotion_event(home, journalled[-1], sha256)])
    store.append(rows)


def _journalled(store: Store, plan: Plan, entries: list[tuple[Happening, str, str]], actor: str) -> list[JournalRow]:
    state, made = journal(store), []
    for event, adapter_id, reason in entries:
        row = append_event(
            state,
            mailbox=plan.mailbox,
            adapter_id=adapter_id,
            event=event,
            reason=reason,
            actor=actor,
            at=plan.asked_at,
        )
        state = advance(state, row)
        made.append(row)
    return made


def _adapter_of(store: Store, run_id: str) -> str:
    return store.fetch(RequestRow, "run_id = ?", [run_id])[0].adapter_id


def _open_window(store: Store, mailbox: str) -> int:
    """The window that is open now: exclusions hold from it on."""
    state = store.scalar("SELECT state FROM window_states WHERE mailbox = ? ORDER BY rowid DESC LIMIT 1", [mailbox])
    return int(json.loads(state)["idx"]) if state else 0
