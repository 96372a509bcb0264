"""Who served when, with what began and what ended it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from pipeline.store.rows import JournalRow
from registry.journal import Happening, Reign, fold

GATE = "gate"
"""Who acts in the journal where no person does."""


@dataclass(frozen=True, slots=True)
class Served:
    """A time in which an adapter was champion (None: the bare base). ``until`` and ``ended_by`` are None while it is."""

    adapter_id: str | None
    since: datetime
    until: datetime | None
    begun_by: JournalRow
    ended_by: JournalRow | None


def all_served(rows: Sequence[JournalRow], mailbox: str) -> tuple[Served, ...]:
    """The reigns of a mailbox, in order."""
    by_ordinal = {row.ordinal: row for row in rows}
    reigns: list[Reign | None] = [reign for reign in fold(rows).reigns if reign.mailbox == mailbox]
    return tuple(
        Served(
            reign.adapter_id,
            reign.since,
            following.since if following else None,
            by_ordinal[reign.ordinal],
            by_ordinal[following.ordinal] if following else None,
        )
        for reign, following in pairwise([*reigns, None])
        if reign is not None
    )


def served_at(rows: Sequence[JournalRow], mailbox: str, time: datetime) -> Served | None:
    """The reign at a time, that instant's events included; None before the first one."""
    begun = [served for served in all_served(rows, mailbox) if served.since <= time]
    return begun[-1] if begun else None


def how(row: JournalRow) -> str:
    """What happened, by whom and why; the gate's reasons are long, and told elsewhere."""
    acts = {Happening.PROMOTED: "promoted", Happening.ROLLED_BACK: "returned to", Happening.TAINTED: "tainted"}
    act = acts.get(Happening(row.event), row.event)
    return f"{act} by the gate" if row.actor == GATE else f"{act} by {row.actor}: {row.reason}"
