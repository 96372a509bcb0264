"""What another policy would have decided, replayed over the stored history of a mailbox.

Each run is judged on the evidence that it left. But a run is a child of the decisions before it: it continues the champion
of its day, trains what that one had not learned, and is compared with it. Where the policy would have had another champion
serving, the run as it was would not have been: its verdict is still told, and that it is no longer history is told with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from pipeline.config.settings import GateSettings
from pipeline.errors import NothingToDo
from pipeline.home import Home
from pipeline.store import Store
from pipeline.store.rows import AdapterRow, JournalRow, RequestRow
from registry.decided import Decided, decided, is_verdict, request_of
from registry.gate import Outcome, Ruling, Verdict, decide
from registry.journal import Happening, RegistryState, advance

BY_HAND = "by hand"


@dataclass(frozen=True, slots=True)
class Entry:
    """One decision then and under the policy. ``then`` and ``under`` are outcomes (``by hand`` for a person's, ``failed``
    for a run that did; ``under`` is None where the evidence cannot be read). ``served_then`` and ``served`` answer after it
    (None: the bare base). ``diverged`` says that what was decided on would not have been as it was, and ``note`` why, or
    what else a reader must know. ``reasons`` are those of the policy."""

    at: datetime
    run_id: str | None
    adapter_id: str
    then: str
    under: str | None
    changed_by: tuple[str, ...]
    served_then: str | None
    served: str | None
    diverged: bool
    note: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hindsight:
    """A mailbox's history under a policy."""

    mailbox: str
    policy: str
    gate: GateSettings
    entries: tuple[Entry, ...]

    @property
    def verdicts(self) -> tuple[Entry, ...]:
        """Entries of runs that the gate decided."""
        return tuple(entry for entry in self.entries if entry.run_id is not None and entry.then != Happening.FAILED.value)

    @property
    def diverges_at(self) -> Entry | None:
        """The first entry of a run that would not have been as it was."""
        return next((entry for entry in self.entries if entry.diverged and entry.run_id is not None), None)


def hindsight(store: Store, home: Home, mailbox: str, name: str, gate: GateSettings) -> Hindsight:
    """Replays a policy over a mailbox's journal; raises ``NothingToDo`` where no run was decided yet."""
    rows = [row for row in store.fetch(JournalRow, order="ordinal") if row.mailbox == mailbox]
    runs = {row.adapter_id: row.run_id for row in store.fetch(RequestRow, "mailbox = ?", [mailbox])}
    if not any(is_verdict(row, rows) for row in rows):
        raise NothingToDo(f"no run of {mailbox} has been decided yet", hint="see `mailtide plan`")
    bases = {row.adapter_id: row.base_id for row in store.fetch(AdapterRow, "mailbox = ?", [mailbox])}
    world = World(gate, bases)
    for row in rows:
        run = None
        if is_verdict(row, rows) and row.adapter_id in runs:
            run = decided(store, home, request_of(store, runs[row.adapter_id]))
        world.follow(row, run)
    return Hindsight(mailbox, name, gate, tuple(world.entries))


@dataclass
class World:
    """The history under the policy as it goes along, beside the one that was. ``reigned`` are all who served in it."""

    gate: GateSettings
    bases: dict[str, str]
    entries: list[Entry] = field(default_factory=list)
    state: RegistryState = field(default_factory=RegistryState)
    served: str | None = None
    reigned: set[str] = field(default_factory=set)

    def follow(self, row: JournalRow, run: Decided | None) -> None:
        """Takes the journal's next row; ``run`` is what it decided, for a verdict of the gate."""
        self.state = advance(self.state, row)
        if run is not None:
            self._decide(row, run)
        elif row.event in (Happening.PROMOTED.value, Happening.ROLLED_BACK.value):
            unheard_of = row.event == Happening.ROLLED_BACK.value and row.adapter_id not in self.reigned
            if not unheard_of:
                self._serve(row.adapter_id)
            note = "nobody could have returned to it: it would never have served" if unheard_of else row.reason
            self._note(row, None, BY_HAND, BY_HAND, (), unheard_of, note)
        elif row.event == Happening.REJECTED.value:
            self._note(row, None, BY_HAND, BY_HAND, (), False, row.reason)
        elif row.event == Happening.TAINTED.value and self.served == row.adapter_id:
            self.served = None

    def _decide(self, row: JournalRow, run: Decided) -> None:
        if run.verdict is None or run.evidence is None:
            under = run.status if run.verdict is None else None
            told = "" if run.verdict is None else "the evidence cannot be read: "
            self._note(row, run.request.run_id, run.status, under, (), False, told + run.missing)
            return
        verdict = decide(run.evidence, self.gate)
        apart = self._apart(run)
        if verdict.outcome is Outcome.PROMOTED and not apart:
            self._serve(row.adapter_id)
        changed = _changed(run.verdict, verdict)
        outcome, reasons = verdict.outcome.value, verdict.reasons
        self._note(row, run.request.run_id, run.status, outcome, changed, bool(apart), apart, reasons)

    def _apart(self, run: Decided) -> str:
        """Why the run would not have been as it was; empty when it would."""
        request = run.request
        comparable = self.served if self.bases.get(self.served or "") == request.base.base_id else None
        challenged = request.champion.adapter_id if request.champion else None
        if challenged != comparable:
            parent = request.parent.adapter_id if request.parent else "the bare base"
            told = f"and challenges {challenged or 'the bare base'}"
            told = "and challenges it" if parent == (challenged or "the bare base") else told
            return f"it continues {parent} {told}, which would not have served then"
        best = request.best.adapter_id if request.best else None
        if run.evidence is not None and run.evidence.drift is not None and best not in self.reigned:
            return f"its drift is measured against {best}, which would never have served"
        return ""

    def _serve(self, adapter_id: str) -> None:
        self.served = adapter_id
        self.reigned.add(adapter_id)

    def _note(
        self,
        row: JournalRow,
        run_id: str | None,
        then: str,
        under: str | None,
        changed: tuple[str, ...],
        diverged: bool,
        note: str,
        reasons: tuple[str, ...] = (),
    ) -> None:
        served_then = self.state.champion(row.mailbox)
        self.entries.append(
            Entry(row.at, run_id, row.adapter_id, then, under, changed, served_then, self.served, diverged, note, reasons)
        )


def _changed(then: Verdict, under: Verdict) -> tuple[str, ...]:
    """The rules that rule otherwise."""
    before: dict[str, Ruling] = {rule.name: rule.ruling for rule in then.rules}
    return tuple(rule.name for rule in under.rules if before.get(rule.name, Ruling.ABSENT) is not rule.ruling)


def tally(entries: Sequence[Entry]) -> dict[str, int]:
    """How many verdicts stay, change, cannot be told, and are of runs that would not have been."""
    return {
        "verdicts": len(entries),
        "same": sum(entry.under == entry.then and not entry.diverged for entry in entries),
        "changed": sum(entry.under not in (entry.then, None) and not entry.diverged for entry in entries),
        "unreadable": sum(entry.under is None for entry in entries),
        "diverged": sum(entry.diverged for entry in entries),
    }
