"""What the next retrain would do, without doing any of it."""

from __future__ import annotations

import pyarrow.compute as pc

from pipeline.home import Home
from pipeline.plan import SCHEDULE, Plan, plan_run
from pipeline.replay import read_schedule
from pipeline.requests import RunRequest, RunResult
from pipeline.runfiles import Exclusions
from pipeline.settings import Settings
from pipeline.store import Store
from pipeline.store.rows import ExclusionRow, RequestRow
from streams.claims import Windows, draft, undecided


def plan_next(store: Store, home: Home, settings: Settings, mailbox: str, windows: Windows) -> Plan:
    """The plan of the undecided request, else of the one that a claim would write now. Raises ``NothingToDo``."""
    request = undecided(store, mailbox) or draft(store, home, settings, mailbox, windows)
    rows = store.fetch(ExclusionRow, "mailbox = ?", [mailbox])
    exclusions = Exclusions(
        threads=frozenset(row.thread_id for row in rows if row.chunk_id is None),
        chunks=frozenset(row.chunk_id for row in rows if row.chunk_id is not None),
    )
    rate = measured_rate(store, home, request)
    return plan_run(home, request, exclusions, tokens_per_second=rate, cost=settings.cost)


def measured_rate(store: Store, home: Home, request: RunRequest) -> float | None:
    """Ruler tokens per second of the newest finished run on the same base, evaluation included and the making of the
    base not; None before the first."""
    rows = store.fetch(
        RequestRow,
        "mailbox = ? AND run_id IN (SELECT run_id FROM run_results)",
        [request.mailbox],
        '"at" DESC',
    )
    for row in rows:
        earlier = RunRequest.model_validate_json(row.request)
        folder = home.run(row.run_id)
        if earlier.base == request.base and (folder / "result.json").is_file():
            result = RunResult.model_validate_json((folder / "result.json").read_bytes())
            tokens = pc.sum(read_schedule(folder / SCHEDULE).table["n_tokens"]).as_py() or 0
            seconds = sum(value for stage, value in result.seconds.items() if stage != "base")
            return float(tokens) / seconds if tokens and seconds else None
    return None
