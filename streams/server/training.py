"""``/api/status``, ``/api/plan`` and ``/api/runs``: where training stands, what it would do next, and starting it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field, NonNegativeInt, model_validator

from pipeline.errors import NothingToDo
from pipeline.store import Store
from pipeline.store.rows import RequestRow
from pipeline.times import utc_now
from registry.decide import decision_of
from registry.decided import request_of
from registry.spending import spending
from streams.documents import plain
from streams.inspecting.standing import standings, state_of
from streams.runs.claims import Windows
from streams.runs.planning import plan_next
from streams.runs.sessions import report_of
from streams.server.context import ServerContext
from streams.server.documents import answer
from streams.server.errors import ERRORS, NOT_NOW, ApiError
from streams.server.newest import Limit, newest
from streams.server.news import progress_of
from streams.server.runs import Runs
from streams.server.wire import Wire

BY_REQUEST = '(SELECT q."at" FROM requests q WHERE q.run_id = runs.run_id) DESC, run_id'


class RunAsked(Wire):
    """Windows from `first` to `last` among those that wait; all of them by default."""

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


class RunStarted(BaseModel):
    """The run that is under way from now on."""

    run_id: str
    mailbox: str


class RunShown(BaseModel):
    """As the view `runs` has it: what a run comes to is null until then. Times are UTC."""

    run_id: str
    windows: list[int]
    parent_adapter: str | None
    adapter_id: str | None
    status: str
    started_at: datetime | None
    finished_at: datetime | None
    steps: int | None
    tokens: int | None
    cost: float | None


def router(context: ServerContext) -> APIRouter:
    """What `mailtide plan`, `retrain`, `runs` and `status` do, by the same functions."""
    routes = APIRouter(prefix="/api", tags=["training"], responses=ERRORS)
    runs = Runs(context)

    @routes.get("/status")
    def show_status() -> Any:
        """Where the mailbox stands: mail, windows, champion, the run under way, cost, and the daemon where one runs."""
        with context.storeroom.reading() as store:
            return answer(_status(context, store, runs.trouble))

    @routes.get("/plan")
    def plan_run() -> Any:
        """What the next run would train on, how long it takes, whether it fits; `plan` is null where nothing waits."""
        with context.storeroom.reading() as store:
            return answer(_planned(context, store, Windows()))

    @routes.post(
        "/runs",
        status_code=202,
        response_model=RunStarted,
        responses={**NOT_NOW, 200: {"description": "the plan, as `confirm` was not given"}},
    )
    def start_run(asked: RunAsked) -> Any:
        """Start a run over what waits, and answer with its id at once (202); 409 while one is under way."""
        if asked.confirm or context.settings.auto_retrain:
            return answer(RunStarted(run_id=runs.start(asked.windows), mailbox=context.mailbox), 202)
        with context.storeroom.reading() as store:
            return answer(_planned(context, store, asked.windows))

    @routes.get("/runs", response_model=list[RunShown])
    def list_runs(limit: Limit = 100) -> Any:
        """The runs, the newest last."""
        with context.storeroom.reading() as store:
            return answer(newest(store, "runs", RunShown, context.mailbox, BY_REQUEST, limit))

    @routes.get("/runs/{run_id}")
    def show_run(run_id: str) -> Any:
        """One run: what it trained on, its losses, verdict and reasons; while it has none, how far it is."""
        with context.storeroom.reading() as store:
            return answer(_run(context, store, run_id))

    return routes


def _status(context: ServerContext, store: Store, trouble: str) -> dict[str, Any]:
    found = [one for one in standings(store) if one.mailbox == context.mailbox]
    return {
        "mailbox": found[0] if found else None,
        "daemon": state_of(store),
        "run": progress_of(store, context.home, context.mailbox),
        "trouble": trouble or None,
        "spent": spending(store, context.settings.cost, utc_now()),
    }


def _planned(context: ServerContext, store: Store, windows: Windows) -> dict[str, Any]:
    try:
        plan = plain(plan_next(store, context.home, context.settings, context.mailbox, windows))
        why = None
    except NothingToDo as nothing:
        plan, why = None, str(nothing)
    return {"plan": plan, "nothing_to_do": why, "spent": spending(store, context.settings.cost, utc_now())}


def _run(context: ServerContext, store: Store, run_id: str) -> Any:
    if not store.fetch(RequestRow, "run_id = ? AND mailbox = ?", [run_id, context.mailbox]):
        raise ApiError(404, "there is no such run", param="run_id", code="run_not_found")
    if decision_of(store, request_of(store, run_id)) is not None:
        return report_of(store, context.home, run_id)
    return {"run_id": run_id, "outcome": None, "progress": progress_of(store, context.home, context.mailbox)}
