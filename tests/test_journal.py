"""The journal: one champion at most, at any time past; what may not happen is refused with what may."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pipeline.errors import RegistryError
from pipeline.store.rows import JournalRow
from registry.journal import (
    LEGAL,
    Happening,
    RegistryState,
    Status,
    advance,
    append_event,
    fold,
)
from registry.reigns import Served, all_served, how, served_at

START = datetime(2026, 1, 1)


def told(*happenings: tuple[str, Happening], mailbox: str = "main") -> list[JournalRow]:
    """Rows an hour apart, each legal after the ones before."""
    rows: list[JournalRow] = []
    state = RegistryState()
    for hour, (adapter_id, event) in enumerate(happenings):
        at = START + timedelta(hours=hour)
        row = append_event(
            state, mailbox=mailbox, adapter_id=adapter_id, event=event, reason="because", actor="gate", at=at
        )
        state = advance(state, row)
        rows.append(row)
    return rows


def champion_at(rows: list[JournalRow], mailbox: str, time: datetime) -> str | None:
    """None for the bare base."""
    served = served_at(rows, mailbox, time)
    return served.adapter_id if served else None


H = Happening
SUCCESSION = [
    ("a1", H.REGISTERED),
    ("a1", H.EVALUATED),
    ("a1", H.PROMOTED),  # hour 2
    ("a2", H.REGISTERED),
    ("a2", H.PROMOTED),  # hour 4
    ("a1", H.ROLLED_BACK),  # hour 5
]


def test_promotion_supersedes_and_rollback_names_where_it_returns_to() -> None:
    state = fold(told(*SUCCESSION))
    assert state.champion("main") == "a1"
    assert state.adapter("a2").status is Status.SUPERSEDED
    assert state.adapter("a1").promoted_at == START + timedelta(hours=2)
    assert [reign.adapter_id for reign in state.reigns] == ["a1", "a2", "a1"]
    assert state.returnable("main") == ("a2",)


@pytest.mark.parametrize(
    ("hours", "champion"), [(0, None), (1.9, None), (2, "a1"), (3.9, "a1"), (4, "a2"), (5, "a1"), (900, "a1")]
)
def test_the_champion_at_any_past_time_can_be_told(hours: float, champion: str | None) -> None:
    rows = told(*SUCCESSION)
    assert champion_at(rows[::-1], "main", START + timedelta(hours=hours)) == champion
    assert champion_at(rows, "other", START + timedelta(hours=hours)) is None


def test_a_reign_is_told_with_its_beginning_and_its_end() -> None:
    def hours(served: Served | None) -> tuple[float | None, float | None]:
        assert served is not None
        first, last = ((time - START) / timedelta(hours=1) if time else None for time in (served.since, served.until))
        return first, last

    rows = told(*SUCCESSION)
    assert served_at(rows, "main", START) is None
    assert hours(served_at(rows, "main", START + timedelta(hours=4.5))) == (4, 5)
    assert hours(served_at(rows, "main", START + timedelta(days=9))) == (5, None)
    assert served_at(rows, "other", START) is None
    first, second, third = all_served(rows, "main")
    assert (first.ended_by, second.ended_by, third.ended_by) == (rows[4], rows[5], None)
    assert how(rows[4]) == "promoted by the gate"
    assert how(replace(rows[5], actor="ann", reason="it was rude")) == "returned to by ann: it was rude"


def test_a_tainted_champion_leaves_the_base_until_one_is_returned_to() -> None:
    rows = told(*SUCCESSION[:5], ("a2", H.TAINTED))
    assert fold(rows).champion("main") is None
    assert champion_at(rows, "main", START + timedelta(hours=5)) is None
    assert fold(told(*SUCCESSION[:5], ("a2", H.TAINTED), ("a1", H.ROLLED_BACK))).champion("main") == "a1"


@pytest.mark.parametrize(
    ("before", "refused", "says"),
    [
        (SUCCESSION[:1], ("a9", H.PROMOTED), "a9 is not registered and cannot be promoted; promoted can be: a1"),
        ([*SUCCESSION, ("a2", H.TAINTED)], ("a2", H.PROMOTED), "a2 is tainted .* no adapter of main can be promoted now"),
        (SUCCESSION[:4], ("a2", H.ROLLED_BACK), "a2 is candidate and cannot be rolled back; no adapter of main"),
        (SUCCESSION, ("a1", H.ROLLED_BACK), "a1 is champion .* rolled back to can be: a2"),
        (SUCCESSION, ("a2", H.PROMOTED), "return to it with `mailtide registry rollback a2`"),
        (SUCCESSION, ("a1", H.ARCHIVED), "a1 is champion and cannot be archived; from there it can be: tainted"),
        (SUCCESSION, ("a1", H.REJECTED), "a1 is champion and cannot be rejected; `mailtide registry rollback` takes"),
        ([("a1", H.REGISTERED), ("a1", H.ARCHIVED)], ("a1", H.ROLLED_BACK), "a1 is archived .* no adapter of main"),
        (SUCCESSION, ("a1", H.REGISTERED), "cannot be registered"),
    ],
)
def test_what_may_not_happen_is_refused_with_what_may(
    before: list[tuple[str, Happening]], refused: tuple[str, Happening], says: str
) -> None:
    state = fold(told(*before))
    with pytest.raises(RegistryError, match=says):
        append_event(state, mailbox="main", adapter_id=refused[0], event=refused[1], reason="", actor="owner", at=START)


def test_an_adapter_stays_with_its_mailbox() -> None:
    state = fold(told(*SUCCESSION))
    with pytest.raises(RegistryError, match="a2 is of mailbox main, not of other"):
        append_event(state, mailbox="other", adapter_id="a2", event=H.ROLLED_BACK, reason="", actor="owner", at=START)


def test_a_rejected_candidate_may_be_promoted_by_hand_and_an_archived_former_champion_returned_to() -> None:
    state = fold(told(("a1", H.REGISTERED), ("a1", H.REJECTED), ("a1", H.PROMOTED)))
    assert state.champion("main") == "a1"
    again = fold(told(*SUCCESSION, ("a2", H.ARCHIVED), ("a2", H.ROLLED_BACK)))
    assert again.champion("main") == "a2"


def test_times_never_run_backwards_and_ordinals_neither() -> None:
    rows = told(*SUCCESSION)
    state = fold(rows)
    late = append_event(state, mailbox="main", adapter_id="a2", event=H.ARCHIVED, reason="", actor="owner", at=START)
    assert late.at == rows[-1].at
    with pytest.raises(RegistryError, match="row 6 cannot follow row 6"):
        advance(state, rows[-1])
    with pytest.raises(RegistryError, match="unknown event 'crowned'"):
        fold([JournalRow(1, START, "main", "a1", "crowned", "", "owner")])


def test_an_erasure_of_mail_names_no_adapter_and_moves_none() -> None:
    before = fold(told(*SUCCESSION))
    after = advance(before, JournalRow(99, START + timedelta(days=1), "main", "", "erased", "one message", "owner"))
    assert (after.adapters, after.champions, after.last_ordinal) == (before.adapters, before.champions, 99)


class Registry(RuleBasedStateMachine):
    """Any events on a few adapters of two mailboxes, beside a model that only remembers who was crowned last."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[JournalRow] = []
        self.state = RegistryState()
        self.crowned: dict[str, str | None] = {}
        self.told: list[tuple[datetime, dict[str, str | None]]] = []
        self.now = START

    @rule(number=st.integers(0, 5), event=st.sampled_from(list(Happening)), minutes=st.integers(-5, 60))
    def happen(self, number: int, event: Happening, minutes: int) -> None:
        mailbox, adapter_id = ("even", "odd")[number % 2], f"a{number}"
        self.now += timedelta(minutes=minutes)
        try:
            row = append_event(
                self.state, mailbox=mailbox, adapter_id=adapter_id, event=event, reason="", actor="x", at=self.now
            )
        except RegistryError:
            known = self.state.adapters.get(adapter_id)
            legal = LEGAL[known.status if known else None]
            assert event not in legal or (event is H.ROLLED_BACK and known is not None and not known.was_champion)
            return
        self.rows.append(row)
        self.state = advance(self.state, row)
        if event in (H.PROMOTED, H.ROLLED_BACK):
            self.crowned[mailbox] = adapter_id
        elif event is H.TAINTED and self.crowned.get(mailbox) == adapter_id:
            self.crowned[mailbox] = None
        self.told.append((row.at, dict(self.crowned)))

    @invariant()
    def one_champion(self) -> None:
        for mailbox in ("even", "odd"):
            reigning = [
                state.adapter_id
                for state in self.state.adapters.values()
                if state.mailbox == mailbox and state.status is Status.CHAMPION
            ]
            assert reigning == ([self.crowned[mailbox]] if self.crowned.get(mailbox) else [])
            assert self.state.champion(mailbox) == self.crowned.get(mailbox)

    @invariant()
    def the_past_can_be_told(self) -> None:
        assert fold(self.rows) == self.state
        last_at_each_time = dict(self.told)
        for at, crowned in list(last_at_each_time.items())[-5:]:
            assert champion_at(self.rows, "even", at) == crowned.get("even")


Registry.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestRegistry = Registry.TestCase
