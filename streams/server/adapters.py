"""``/api/adapters``: the adapters of the mailbox, their part of the journal, and what their verdicts rest on."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from pipeline.store import Store
from registry.chosen import selection_of
from registry.decided import decided, request_of
from registry.explain import explain
from streams.documents import plain
from streams.server.context import ServerContext
from streams.server.documents import answer
from streams.server.errors import ERRORS, NOT_NOW, ApiError
from streams.server.newest import Limit, newest


class AdapterShown(BaseModel):
    """As the view `adapters` has it; `sha256` is that of its weights. Times are UTC."""

    adapter_id: str
    run_id: str
    status: str
    created_at: datetime
    promoted_at: datetime | None
    sha256: str
    safety_flags: int | None


class EntryShown(BaseModel):
    """An entry of the journal: `registered`, `evaluated`, `promoted`, `rolled_back` and so on, and by whom."""

    ordinal: int
    at: datetime
    event: str
    reason: str
    actor: str


class AdapterWithJournal(AdapterShown):
    """An adapter and what the journal says of it, the newest last."""

    journal: list[EntryShown]


def router(context: ServerContext) -> APIRouter:
    """What `mailtide registry list`, `show` and `explain` tell, by the same functions."""
    routes = APIRouter(prefix="/api", tags=["registry"], responses=ERRORS)
    mailbox, home = context.mailbox, context.home

    @routes.get("/adapters", response_model=list[AdapterShown])
    def list_adapters(limit: Limit = 100) -> Any:
        """The adapters with their status, the newest last."""
        with context.storeroom.reading() as store:
            return answer(newest(store, "adapters", AdapterShown, mailbox, "created_at DESC, adapter_id", limit))

    @routes.get("/adapters/{adapter_id}", response_model=AdapterWithJournal)
    def show_adapter(adapter_id: str) -> Any:
        """One adapter and its part of the journal."""
        with context.storeroom.reading() as store:
            return answer({**_adapter(store, mailbox, adapter_id), "journal": _journal(store, adapter_id)})

    @routes.get("/adapters/{adapter_id}/explain", responses=NOT_NOW)
    def explain_adapter(adapter_id: str) -> Any:
        """Why it was promoted, rejected or abstained on, rule by rule, as `mailtide registry explain --json` has it. 409
        before its verdict."""
        with context.storeroom.reading() as store:
            _adapter(store, mailbox, adapter_id)
            told = explain(store, home, decided(store, home, request_of(store, adapter_id)), context.settings.gate)
        policy, selection = told.policy.model_dump(), selection_of(home, told.run_id)
        return answer({**plain(told), "policy": policy, "selection": selection})

    return routes


def _adapter(store: Store, mailbox: str, adapter_id: str) -> dict[str, Any]:
    columns = tuple(AdapterShown.model_fields)
    rows = store.query(
        f"SELECT {', '.join(columns)} FROM adapters WHERE adapter_id = ? AND mailbox = ?", [adapter_id, mailbox]
    )
    if not rows:
        raise ApiError(404, "there is no such adapter", param="adapter_id", code="adapter_not_found")
    return dict(zip(columns, rows[0], strict=True))


def _journal(store: Store, adapter_id: str) -> list[dict[str, Any]]:
    columns = tuple(EntryShown.model_fields)
    rows = store.query(
        'SELECT ordinal, "at", event, reason, actor FROM journal WHERE adapter_id = ? ORDER BY ordinal', [adapter_id]
    )
    return [dict(zip(columns, row, strict=True)) for row in rows]
