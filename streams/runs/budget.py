"""The cap on what training may cost: held against before a run is claimed, so that what it refuses leaves no trace."""

from __future__ import annotations

from datetime import datetime

from pipeline.config.settings import Settings
from pipeline.errors import RunError
from pipeline.home import Home
from pipeline.store import Store
from registry.spending import DAYS, relief, spending
from streams.runs.claims import Windows, undecided
from streams.runs.planning import plan_next


def require_budget(store: Store, home: Home, settings: Settings, mailbox: str, windows: Windows, now: datetime) -> None:
    """Raises ``RunError`` when a claim now would ask for a run that takes the last 30 days above ``cost.cap``.

    A run that was claimed already goes on: it has begun. Before a first run has measured a rate nothing is known of the
    next, and only a cap that is used up refuses it. Raises ``NothingToDo`` where a claim would.
    """
    cap = settings.cost.cap
    if cap is None or undecided(store, mailbox) is not None:
        return
    spent, currency = spending(store, settings.cost, now).cost, settings.cost.currency
    planned = 0.0 if spent >= cap else plan_next(store, home, settings, mailbox, windows).cost or 0.0
    if spent < cap and spent + planned <= cap:
        return
    said = f", and this one would take about {planned:.2f}" if planned else ""
    free = relief(store, spent + planned - cap, now)
    when = f", or wait until {free:%Y-%m-%d}" if free is not None else ""
    raise RunError(
        f"the runs of the last {DAYS} days cost {spent:.2f} {currency}{said}: cost.cap allows {cap:.2f}",
        hint=f"raise cost.cap{when}",
    )
