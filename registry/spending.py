"""What training has cost: the sum of what each run was noted to cost when it finished, at the price of its day.

A run is priced by the wall time of the process that finished it. One that failed leaves no such time and is not counted,
nor is what a killed process had done before it was taken up again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pipeline.config.settings import CostSettings
from pipeline.store import Store

DAYS = 30


@dataclass(frozen=True, slots=True)
class Spending:
    """Runs, their hours and cost, in the last 30 days and ever; ``cap`` is on the cost of 30 days, None without."""

    runs: int
    hours: float
    cost: float
    runs_ever: int
    hours_ever: float
    cost_ever: float
    cap: float | None
    currency: str


def spending(store: Store, settings: CostSettings, now: datetime) -> Spending:
    """As of ``now``, over all mailboxes of a home."""
    runs, hours, cost = _total(store, now - timedelta(days=DAYS))
    runs_ever, hours_ever, cost_ever = _total(store, datetime.min)
    return Spending(runs, hours, cost, runs_ever, hours_ever, cost_ever, settings.cap, settings.currency)


def _total(store: Store, since: datetime) -> tuple[int, float, float]:
    runs, hours, cost = store.query(
        """
        SELECT count(*), coalesce(sum(epoch(finished_at - started_at)), 0) / 3600, coalesce(sum(cost), 0)
        FROM run_results WHERE finished_at > ?
        """,
        [since],
    )[0]
    return int(runs), float(hours), float(cost)


def relief(store: Store, needed: float, now: datetime) -> datetime | None:
    """When so much of the last 30 days' cost will lie further back; None where it never will."""
    rows: list[tuple[datetime, float]] = store.query(
        "SELECT finished_at, cost FROM run_results WHERE finished_at > ? ORDER BY finished_at", [now - timedelta(days=DAYS)]
    )
    freed = 0.0
    for finished_at, cost in rows:
        freed += cost
        if freed >= needed:
            return finished_at + timedelta(days=DAYS)
    return None
