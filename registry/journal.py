"""The registry is a journal; what is true of adapters, now or at any time past, is its fold.

An adapter is a candidate until a verdict. At most one adapter of a mailbox is champion, because promoting one is what
supersedes the other: there is nowhere to note two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from pipeline.errors import RegistryError
from pipeline.store.rows import JournalRow


class Status(StrEnum):
    """Where an adapter stands. ``superseded`` is a former champion whose place another took."""

    CANDIDATE = "candidate"
    CHAMPION = "champion"
    SUPERSEDED = "superseded"
    REJECTED = "rejected"
    ARCHIVED = "archived"
    TAINTED = "tainted"
    FAILED = "failed"


class Happening(StrEnum):
    """What the journal records. ``rolled_back`` names the adapter that is returned to; ``tainted`` one that learned from
    what was erased; ``erased`` notes an erasure, of an adapter's files or (without an adapter) of mail."""

    REGISTERED = "registered"
    EVALUATED = "evaluated"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    ABSTAINED = "abstained"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    ARCHIVED = "archived"
    TAINTED = "tainted"
    ERASED = "erased"


LEGAL: Mapping[Status | None, frozenset[Happening]] = MappingProxyType(
    {
        None: frozenset({Happening.REGISTERED, Happening.FAILED}),
        Status.CANDIDATE: frozenset(
            {
                Happening.EVALUATED,
                Happening.PROMOTED,
                Happening.REJECTED,
                Happening.ABSTAINED,
                Happening.ARCHIVED,
                Happening.TAINTED,
            }
        ),
        Status.CHAMPION: frozenset({Happening.TAINTED}),
        Status.SUPERSEDED: frozenset({Happening.ROLLED_BACK, Happening.ARCHIVED, Happening.TAINTED}),
        Status.REJECTED: frozenset({Happening.PROMOTED, Happening.ARCHIVED, Happening.TAINTED}),
        Status.ARCHIVED: frozenset({Happening.ROLLED_BACK, Happening.TAINTED}),
        Status.TAINTED: frozenset({Happening.ERASED}),
        Status.FAILED: frozenset({Happening.TAINTED}),
    }
)
"""What may happen to an adapter, by where it stands (None: unknown so far). A rejected adapter may still be promoted, by
hand; an archived one may be returned to only if it once was champion, as only then its files are kept."""

_BECOMES = {
    Happening.REGISTERED: Status.CANDIDATE,
    Happening.PROMOTED: Status.CHAMPION,
    Happening.ROLLED_BACK: Status.CHAMPION,
    Happening.REJECTED: Status.REJECTED,
    Happening.ARCHIVED: Status.ARCHIVED,
    Happening.TAINTED: Status.TAINTED,
    Happening.FAILED: Status.FAILED,
}


@dataclass(frozen=True, slots=True)
class AdapterState:
    """An adapter's standing. ``promoted_at`` is the first time it became champion; ``since`` when ``status`` began;
    ``reason`` is that of its newest row."""

    adapter_id: str
    mailbox: str
    status: Status
    registered_at: datetime
    since: datetime
    promoted_at: datetime | None = None
    reason: str = ""

    @property
    def was_champion(self) -> bool:
        return self.promoted_at is not None


@dataclass(frozen=True, slots=True)
class Reign:
    """Who was champion of a mailbox from ``since``; ``adapter_id`` None is the bare base."""

    mailbox: str
    adapter_id: str | None
    since: datetime
    ordinal: int


@dataclass(frozen=True, slots=True)
class RegistryState:
    """The fold of a journal: every adapter's standing, the champion per mailbox, and all reigns in order."""

    adapters: Mapping[str, AdapterState] = field(default_factory=dict)
    champions: Mapping[str, str] = field(default_factory=dict)
    reigns: tuple[Reign, ...] = ()
    last_ordinal: int = 0
    last_at: datetime | None = None

    def champion(self, mailbox: str) -> str | None:
        """The adapter that serves a mailbox, or None while the bare base does."""
        return self.champions.get(mailbox)

    def adapter(self, adapter_id: str) -> AdapterState:
        """Raises ``RegistryError`` when there is no such adapter."""
        found = self.adapters.get(adapter_id)
        if found is None:
            raise RegistryError(f"there is no adapter {adapter_id}", hint="see `mailtide registry list`")
        return found

    def returnable(self, mailbox: str) -> tuple[str, ...]:
        """Adapters that a mailbox may be rolled back to, the newest promotion first."""
        former = [
            state
            for state in self.adapters.values()
            if state.mailbox == mailbox and state.was_champion and Happening.ROLLED_BACK in LEGAL[state.status]
        ]
        return tuple(
            state.adapter_id for state in sorted(former, key=lambda state: state.promoted_at or state.since, reverse=True)
        )

    def before(self, mailbox: str) -> tuple[str, ...]:
        """Former champions that came before the present one and may be returned to, the nearest first. One that a rollback
        left is not among them: it was left for a reason."""
        line: list[str] = []
        for reign in self.reigns:
            if reign.mailbox == mailbox and reign.adapter_id in line:
                line = line[: line.index(reign.adapter_id) + 1]
            elif reign.mailbox == mailbox and reign.adapter_id is not None:
                line.append(reign.adapter_id)
        returnable = self.returnable(mailbox)
        return tuple(adapter_id for adapter_id in reversed(line) if adapter_id in returnable)

    def promotable(self, mailbox: str) -> tuple[str, ...]:
        """Adapters of a mailbox that may be promoted, the newest first."""
        open_to_it = [
            state
            for state in self.adapters.values()
            if state.mailbox == mailbox and Happening.PROMOTED in LEGAL[state.status]
        ]
        return tuple(state.adapter_id for state in sorted(open_to_it, key=lambda state: state.registered_at, reverse=True))


def fold(rows: Iterable[JournalRow]) -> RegistryState:
    """What a journal says, taken in order of ``ordinal``; raises ``RegistryError`` where a row cannot follow."""
    return _followed(RegistryState(), sorted(rows, key=lambda row: row.ordinal))


def append_event(
    state: RegistryState, *, mailbox: str, adapter_id: str, event: Happening, reason: str, actor: str, at: datetime
) -> JournalRow:
    """The journal's next row; raises ``RegistryError`` when it may not happen, naming what may.

    A journal's times never run backwards: an ``at`` before the last row's, from a clock that was set back, is that row's.
    """
    if state.last_at is not None:
        at = max(at, state.last_at)
    row = JournalRow(state.last_ordinal + 1, at, mailbox, adapter_id, event.value, reason, actor)
    advance(state, row)
    return row


def advance(state: RegistryState, row: JournalRow) -> RegistryState:
    """The state after one more row; raises ``RegistryError`` when the row may not follow."""
    return _followed(state, [row])


def _followed(state: RegistryState, rows: Iterable[JournalRow]) -> RegistryState:
    """The state after more rows. It is copied once: a copy a row would make a long journal slow to read."""
    adapters, champions, reigns = dict(state.adapters), dict(state.champions), list(state.reigns)
    now = replace(state, adapters=adapters, champions=champions)
    for row in rows:
        event = _known(row)
        if row.adapter_id or event is not Happening.ERASED:
            _check(now, row, event)
            _add(adapters, champions, reigns, row, event)
        now = replace(now, last_ordinal=row.ordinal, last_at=row.at)
    return replace(now, reigns=tuple(reigns))


def _add(
    adapters: dict[str, AdapterState], champions: dict[str, str], reigns: list[Reign], row: JournalRow, event: Happening
) -> None:
    reigned = champions.get(row.mailbox)
    before = adapters.get(row.adapter_id) or AdapterState(row.adapter_id, row.mailbox, Status.CANDIDATE, row.at, row.at)
    after = replace(before, reason=row.reason)
    status = _BECOMES.get(event, before.status)
    if status is not before.status:
        after = replace(after, status=status, since=row.at)
    if status is Status.CHAMPION:
        if reigned is not None:
            adapters[reigned] = replace(adapters[reigned], status=Status.SUPERSEDED, since=row.at)
        champions[row.mailbox] = row.adapter_id
        after = replace(after, promoted_at=before.promoted_at or row.at)
    elif reigned == row.adapter_id:
        del champions[row.mailbox]
    adapters[row.adapter_id] = after
    if champions.get(row.mailbox) != reigned:
        reigns.append(Reign(row.mailbox, champions.get(row.mailbox), row.at, row.ordinal))


def _known(row: JournalRow) -> Happening:
    try:
        return Happening(row.event)
    except ValueError as error:
        raise RegistryError(f"journal row {row.ordinal}: unknown event {row.event!r}") from error


def _check(state: RegistryState, row: JournalRow, event: Happening) -> None:
    known = state.adapters.get(row.adapter_id)
    if row.ordinal <= state.last_ordinal:
        raise RegistryError(f"journal row {row.ordinal} cannot follow row {state.last_ordinal}")
    if known is not None and known.mailbox != row.mailbox:
        raise RegistryError(f"adapter {row.adapter_id} is of mailbox {known.mailbox}, not of {row.mailbox}")
    status = known.status if known else None
    returns = event is Happening.ROLLED_BACK
    if event in LEGAL[status] and not (returns and known is not None and not known.was_champion):
        return
    if event in (Happening.PROMOTED, Happening.ROLLED_BACK):
        choices = state.returnable(row.mailbox) if returns else state.promotable(row.mailbox)
        verb = "rolled back to" if returns else "promoted"
        hint = f"{verb} can be: {', '.join(choices)}" if choices else f"no adapter of {row.mailbox} can be {verb} now"
        if not returns and known is not None and row.adapter_id in state.returnable(row.mailbox):
            hint = f"return to it with `mailtide registry rollback {row.adapter_id}`"
    else:
        allowed = sorted(happening.value for happening in LEGAL[status])
        hint = f"from there it can be: {', '.join(allowed)}"
        if event is Happening.REJECTED and status is Status.CHAMPION:
            hint = "`mailtide registry rollback` takes a champion away, by returning to a former one"
    stands = f"is {status}" if status else "is not registered"
    raise RegistryError(f"adapter {row.adapter_id} {stands} and cannot be {event.value.replace('_', ' ')}", hint=hint)
