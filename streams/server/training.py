"""``/api``: plan and start runs, and see what became of them, of windows and of adapters. One mailbox, the server's own."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from pydantic import Field, NonNegativeInt, model_validator
from starlette.responses import StreamingResponse

from pipeline.errors import NothingToDo
from pipeline.store import Store
from pipeline.store.rows import RequestRow
from registry.chosen import selection_of
from registry.decide import decision_of
from registry.decided import decided, request_of
from registry.explain import explain
from registry.spending import spending
from streams.claims import Windows
from streams.planning import plan_next
from streams.server.context import ServerContext
from streams.server.documents import answer, document
from streams.server.errors import ERRORS, ApiError
from streams.server.news import News, progress_of
from streams.server.runs import Runs
from streams.server.wire import Wire
from streams.sessions import report_of
from streams.standing import standings, state_of
from streams.times import utc_now

RUN_COLUMNS = "run_id, windows, parent_adapter, adapter_id, status, started_at, finished_at, steps, tokens, cost"
WINDOW_COLUMNS = "window_idx, opened_at, closed_at, reason, n_messages, n_chunks"
ADAPTER_COLUMNS = "adapter_id, run_id, status, created_at, promoted_at, sha256, safety_flags"
MOST = 1_000
Limit = Annotated[int, Query(ge=1, le=MOST, description="how many at most, the newest")]


class RunAsked(Wire):
    """Windows from ``first`` to ``last`` among those that wait; all of them by default."""

    confirm: bool = Field(default=False, description="start it; without this, or auto_retrain, only the plan is answered")
    first: NonNegativeInt | None = Field(default=None, le=2**31)
    last: NonNegativeInt | None = Field(default=None, le=2**31)

    @model_validator(mode="after")
    def _runs_forward(self) -> RunAsked:
        if self.first is not None and self.last is not None and self.last < self.first:
            raise ValueError("last is before first")
        return self

    @property
    def windows(self) -> Windows:
        return Windows(self.first, self.last)


def router(context: ServerContext) -> APIRouter:
    """What `mailtide plan`, `retrain`, `runs`, `windows`, `registry` and `status` do, by the same functions."""
    routes = APIRouter(
        prefix="/api",
        tags=["training"],
        responses={**ERRORS, 409: {**ERRORS[422], "description": "cannot be done as things stand"}},
    )
    runs = Runs(context)
    mailbox, home = context.mailbox, context.home

    def planned(store: Store, windows: Windows) -> dict[str, Any]:
        cost = context.settings.cost
        try:
            plan = document(plan_next(store, home, context.settings, mailbox, windows))
            why = None
        except NothingToDo as nothing:
            plan, why = None, str(nothing)
        return {"plan": plan, "nothing_to_do": why, "spent": spending(store, cost, utc_now())}

    @routes.get("/status")
    def status() -> Any:
        """Where the mailbox stands: mail, windows, champion, the run under way, cost, and the daemon where one runs."""
        with context.storeroom.reading() as store:
            found = [one for one in standings(store) if one.mailbox == mailbox]
            told = {
                "mailbox": found[0] if found else None,
                "daemon": state_of(store),
                "run": progress_of(store, home, mailbox),
                "trouble": runs.trouble or None,
                "spent": spending(store, context.settings.cost, utc_now()),
            }
        return answer(told)

    @routes.get("/plan")
    def plan() -> Any:
        """What the next run would train on, how long it takes, whether it fits; `plan` is null where nothing waits."""
        with context.storeroom.reading() as store:
            return answer(planned(store, Windows()))

    @routes.post("/runs", status_code=202, responses={200: {"description": "the plan, as `confirm` was not given"}})
    def start(asked: RunAsked) -> Any:
        """Start a run over what waits, and answer with its id at once (202); 409 while one is under way."""
        if asked.confirm or context.settings.auto_retrain:
            return answer({"run_id": runs.start(asked.windows), "mailbox": mailbox}, 202)
        with context.storeroom.reading() as store:
            return answer(planned(store, asked.windows))

    @routes.get("/runs")
    def list_runs(limit: Limit = 100) -> Any:
        """The runs, the newest last."""
        order = '(SELECT q."at" FROM requests q WHERE q.run_id = runs.run_id)'
        with context.storeroom.reading() as store:
            return answer(_newest(store, "runs", RUN_COLUMNS, mailbox, f"{order} DESC, run_id", limit))

    @routes.get("/runs/{run_id}")
    def one_run(run_id: str) -> Any:
        """One run: what it trained on, its losses, verdict and reasons; while it has none, how far it is."""
        with context.storeroom.reading() as store:
            if not store.fetch(RequestRow, "run_id = ? AND mailbox = ?", [run_id, mailbox]):
                raise ApiError(404, "there is no such run", param="run_id", code="run_not_found")
            if decision_of(store, request_of(store, run_id)) is not None:
                return answer(report_of(store, home, run_id))
            return answer({"run_id": run_id, "outcome": None, "progress": progress_of(store, home, mailbox)})

    @routes.get("/windows")
    def windows(limit: Limit = 100) -> Any:
        """The training windows, the newest last; one that is open has no `closed_at`."""
        with context.storeroom.reading() as store:
            return answer(_newest(store, "windows", WINDOW_COLUMNS, mailbox, "window_idx DESC", limit))

    @routes.get("/adapters")
    def adapters(limit: Limit = 100) -> Any:
        """The adapters with their status, the newest last."""
        with context.storeroom.reading() as store:
            return answer(_newest(store, "adapters", ADAPTER_COLUMNS, mailbox, "created_at DESC, adapter_id", limit))

    @routes.get("/adapters/{adapter_id}")
    def one_adapter(adapter_id: str) -> Any:
        """One adapter and its part of the journal."""
        with context.storeroom.reading() as store:
            adapter = _adapter(store, mailbox, adapter_id)
            rows = store.query(
                'SELECT ordinal, "at", event, reason, actor FROM journal WHERE adapter_id = ? ORDER BY ordinal',
                [adapter_id],
            )
        columns = ("ordinal", "at", "event", "reason", "actor")
        return answer({**adapter, "journal": [dict(zip(columns, row, strict=True)) for row in rows]})

    @routes.get("/adapters/{adapter_id}/explain")
    def explain_adapter(adapter_id: str) -> Any:
        """Why it was promoted, rejected or abstained on, rule by rule. 409 before its verdict."""
        with context.storeroom.reading() as store:
            _adapter(store, mailbox, adapter_id)
            told = explain(store, home, decided(store, home, request_of(store, adapter_id)), context.settings.gate)
        policy, selection = told.policy.model_dump(), selection_of(home, told.run_id)
        return answer({**document(told), "policy": policy, "selection": selection})

    @routes.get(
        "/events",
        response_class=StreamingResponse,
        responses={
            200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "events, without end"}
        },
    )
    def events(last_event_id: Annotated[int | None, Header(ge=0, le=2**53)] = None) -> StreamingResponse:
        """The progress of runs (`progress`) and every decision (`decision`, with its number in the journal as id) from now
        on, or after `Last-Event-ID`, as server-sent events, for as long as the caller listens."""
        after = last_event_id
        if after is None:
            with context.storeroom.reading() as store:
                after = int(store.scalar("SELECT coalesce(max(ordinal), 0) FROM journal_rows"))
        news = News(context, after)
        return StreamingResponse(news.events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    return routes


def _newest(store: Store, view: str, columns: str, mailbox: str, order: str, limit: int) -> list[dict[str, Any]]:
    rows = store.query(f"SELECT {columns} FROM {view} WHERE mailbox = ? ORDER BY {order} LIMIT ?", [mailbox, limit])
    names = columns.split(", ")
    return [dict(zip(names, row, strict=True)) for row in reversed(rows)]


def _adapter(store: Store, mailbox: str, adapter_id: str) -> dict[str, Any]:
    rows = store.query(
        f"SELECT {ADAPTER_COLUMNS} FROM adapters WHERE adapter_id = ? AND mailbox = ?", [adapter_id, mailbox]
    )
    if not rows:
        raise ApiError(404, "there is no such adapter", param="adapter_id", code="adapter_not_found")
    return dict(zip(ADAPTER_COLUMNS.split(", "), rows[0], strict=True))
