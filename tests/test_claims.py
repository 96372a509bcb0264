"""Claims: one undecided request per mailbox, what waits is pooled, and the same evidence is not asked twice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.config.settings import ModelSettings, TrainSettings
from pipeline.errors import NothingToDo, UsageError
from pipeline.home import sha256_file, write_atomic
from pipeline.runs.requests import RunRequest
from pipeline.runs.runfiles import read_exclusions, read_losses
from pipeline.store.rows import ExclusionRow, OutboxRow, RequestRow
from registry import byhand
from registry.decide import decision_of, fail_run
from streams.runs.claims import (
    ALL_WAITING,
    NEWLY_CLOSED,
    Windows,
    claim,
    claimed_otherwise,
    draft,
    require_no_other,
    undecided,
)
from streams.runs.planning import plan_next
from tests.support.finished import START, Finished
from tests.support.lineage import MAILBOX


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Finished]:
    finished = Finished.at(tmp_path / "home")
    with finished.store:
        yield finished


def claimed(box: Finished, windows: Windows = ALL_WAITING) -> RunRequest:
    box.now += timedelta(minutes=1)
    asked = claim(box.store, box.home, box.settings, MAILBOX, windows, box.now)
    write_atomic(box.home.root / asked.base.path / "model.safetensors", b"weights of the base")
    box.base = f"base:{asked.base.base_id}"
    return asked


def promoted(box: Finished, windows: Windows = ALL_WAITING) -> RunRequest:
    asked = claimed(box, windows)
    assert box.decide(asked, box.finish(asked, new=-0.3)).status == "promoted"
    return asked


def test_an_undecided_request_is_continued_whatever_closes_meanwhile(box: Finished) -> None:
    box.close_window()
    first = claimed(box)
    box.close_window()
    assert claimed(box) == first == undecided(box.store, MAILBOX)
    assert len(box.store.fetch(RequestRow)) == 1
    events = box.store.fetch(OutboxRow, "topic = 'retrain.run.requested.v1'")
    assert [event.event_id for event in events] == [f"run.requested/{MAILBOX}/{first.run_id}"]


def test_the_same_command_goes_on_with_a_run_and_another_range_waits_for_it(box: Finished) -> None:
    for _ in range(3):
        box.close_window()
    asked = claimed(box, Windows(first=0, last=1))
    for same in (ALL_WAITING, Windows(first=0, last=1), Windows(first=0, last=9), Windows(first=0)):
        require_no_other(box.store, MAILBOX, same)
    for other in (Windows(first=1, last=2), Windows(first=2), Windows(last=0)):
        with pytest.raises(UsageError, match=f"run {asked.run_id} of main has no verdict yet and goes first"):
            require_no_other(box.store, MAILBOX, other)


def test_settings_that_an_undecided_run_will_not_have_are_noticed(box: Finished) -> None:
    box.close_window()
    assert claimed_otherwise(box.store, box.settings, MAILBOX) == ""
    asked = claimed(box)
    assert claimed_otherwise(box.store, box.settings, MAILBOX) == ""
    other = box.settings.model_copy(update={"train": TrainSettings(lr=0.5)})
    assert claimed_otherwise(box.store, other, MAILBOX) == asked.run_id


def test_what_closed_while_a_run_was_out_becomes_one_run(box: Finished) -> None:
    box.close_window()
    first = claimed(box)
    box.close_window()
    box.close_window()
    assert box.decide(first, box.finish(first, new=-0.3)).status == "promoted"
    second = claimed(box)
    assert (second.new_windows, second.old_windows) == ((1, 2), (0,))
    assert second.parent is not None and second.parent == second.champion
    assert second.parent.adapter_id == first.adapter_id
    assert second.coverage_sha256 == sha256_file(box.home.run(first.run_id) / "coverage.parquet")


def test_each_takes_one_closing_more_per_run(box: Finished) -> None:
    for _ in range(3):
        box.close_window()
    each = Windows(each=True)
    taken = [promoted(box, each).new_windows for _ in range(3)]
    assert taken == [(0,), (1,), (2,)]
    with pytest.raises(NothingToDo, match="every closed window up to 2 was asked about"):
        claimed(box, each)


def test_windows_of_an_abstention_are_new_again_in_the_next_run(box: Finished) -> None:
    box.close_window(val=2)
    first = claimed(box)
    assert box.decide(first, box.finish(first, new=-0.3)).status == "abstained"
    with pytest.raises(NothingToDo, match=f"run {first.run_id} was abstained on just this evidence"):
        claimed(box)
    box.close_window()
    assert claimed(box).new_windows == (0, 1)


def test_windows_of_a_failed_run_join_the_next(box: Finished) -> None:
    box.close_window()
    first = claimed(box)
    fail_run(box.store, first, "the GPU fell off the bus", box.now, "gate")
    box.close_window()
    assert claimed(box).new_windows == (0, 1)


def test_a_plan_says_that_a_fresh_run_leaves_the_champion_and_its_windows(box: Finished) -> None:
    box.close_window()
    assert plan_next(box.store, box.home, box.settings, MAILBOX, ALL_WAITING).begins == ""
    first = promoted(box)
    box.close_window()
    assert plan_next(box.store, box.home, box.settings, MAILBOX, ALL_WAITING).begins == ""
    fresh = box.settings.model_copy(update={"model": ModelSettings(init_from="fresh")})
    told = plan_next(box.store, box.home, fresh, MAILBOX, Windows(first=1)).begins
    assert told == (
        f"model.init_from is fresh, so champion {first.adapter_id} is not continued; its windows 0 are not trained again"
    )
    assert plan_next(box.store, box.home, fresh, MAILBOX, ALL_WAITING).begins.endswith("is not continued")


def test_a_failed_run_may_be_asked_for_again_and_is_another_run(box: Finished) -> None:
    box.close_window()
    first = claimed(box)
    fail_run(box.store, first, "the base model was away", box.now, "gate")
    with pytest.raises(NothingToDo, match="a run was asked for on every closed window"):
        claimed(box, NEWLY_CLOSED)  # not by itself
    planned = plan_next(box.store, box.home, box.settings, MAILBOX, ALL_WAITING)
    assert planned.failed == f"run {first.run_id} failed: the base model was away"
    second = claimed(box)
    assert (second.run_id, second.failed_before) == (planned.run_id, 1)
    assert second.run_id != first.run_id and second.new_windows == first.new_windows
    assert claimed(box) == second, "a restart continues it"
    fail_run(box.store, second, "it was away still", box.now, "gate")
    third = claimed(box)
    assert box.decide(third, box.finish(third, new=-0.3)).status == "promoted"
    statuses = [decision.status for asked in (first, second, third) if (decision := decision_of(box.store, asked))]
    assert statuses == ["failed", "failed", "promoted"]
    assert len({row.event_id for row in box.store.fetch(OutboxRow, "topic = 'retrain.run.requested.v1'")}) == 3
    with pytest.raises(NothingToDo, match="has learned every closed window"):
        claimed(box)


def test_what_came_to_a_verdict_is_not_planned_again_either(box: Finished) -> None:
    box.close_window(val=2)
    first = claimed(box)
    assert box.decide(first, box.finish(first, new=-0.3)).status == "abstained"
    with pytest.raises(NothingToDo, match=f"run {first.run_id} was abstained on just this evidence"):
        plan_next(box.store, box.home, box.settings, MAILBOX, ALL_WAITING)


def test_a_range_chooses_among_what_waits(box: Finished) -> None:
    for _ in range(4):
        box.close_window()
    assert claimed(box, Windows(first=1, last=2)).new_windows == (1, 2)


def test_only_the_newest_windows_are_taken(box: Finished) -> None:
    for _ in range(4):
        box.close_window()
    few = box.settings.model_copy(update={"replay": box.settings.replay.model_copy(update={"max_new_windows": 2})})
    assert claim(box.store, box.home, few, MAILBOX, ALL_WAITING, START).new_windows == (2, 3)


def test_after_a_rollback_the_next_run_continues_the_adapter_returned_to(box: Finished) -> None:
    box.close_window()
    first = promoted(box)
    box.close_window()
    second = promoted(box)
    byhand.rollback(box.store, box.home, MAILBOX, first.adapter_id, "a complaint", "tester", box.now)
    with pytest.raises(NothingToDo, match=f"run {second.run_id} was promoted"):
        claimed(box)
    box.close_window()
    third = claimed(box)
    assert third.new_windows == (1, 2)
    assert third.parent is not None and third.parent.adapter_id == first.adapter_id
    assert third.best is not None and third.best.adapter_id == second.adapter_id


def test_the_folder_holds_what_the_request_names(box: Finished) -> None:
    box.close_window()
    first = promoted(box)
    box.close_window()
    box.store.append([ExclusionRow(MAILBOX, "val0-1", None, "late merge across splits", 1, box.now)])
    asked = claimed(box)
    folder = box.home.run(asked.run_id)
    assert RunRequest.model_validate_json((folder / "request.json").read_bytes()) == asked
    assert asked.run_id == folder.name
    assert read_exclusions(folder / "exclusions.parquet", asked.exclusions_sha256).threads == {"val0-1"}
    known = {loss.adapter_id for loss in read_losses(folder / "known_losses.parquet")}
    assert first.adapter_id in known


def test_a_draft_writes_nothing(box: Finished) -> None:
    box.close_window()
    before = sorted(box.home.root.rglob("*"))
    drafted = draft(box.store, box.home, box.settings, MAILBOX, ALL_WAITING)
    assert sorted(box.home.root.rglob("*")) == before
    assert box.store.fetch(RequestRow) == []
    assert claimed(box) == drafted


def test_nothing_closed_is_nothing_to_do(box: Finished) -> None:
    with pytest.raises(NothingToDo, match="no window of main has closed yet"):
        claimed(box)


def test_a_range_reaches_windows_older_than_the_newest_that_a_run_takes(box: Finished) -> None:
    for _ in range(4):
        box.close_window()
    few = box.settings.model_copy(update={"replay": box.settings.replay.model_copy(update={"max_new_windows": 2})})
    asked = claim(box.store, box.home, few, MAILBOX, Windows(first=0, last=0), START)
    assert asked.new_windows == (0,)


def test_a_closing_starts_one_run_by_itself_whatever_is_excluded_later(box: Finished) -> None:
    box.close_window(val=2)
    first = claimed(box, NEWLY_CLOSED)
    assert box.decide(first, box.finish(first, new=-0.3)).status == "abstained"
    box.store.append([ExclusionRow(MAILBOX, "val0-1", None, "late merge across splits", 1, box.now)])
    with pytest.raises(NothingToDo, match="a run was asked for on every closed window that waits"):
        claimed(box, NEWLY_CLOSED)
    box.close_window()
    assert claimed(box, NEWLY_CLOSED).new_windows == (0, 1)


def test_a_person_may_ask_again_once_something_is_excluded(box: Finished) -> None:
    box.close_window(val=2)
    first = claimed(box)
    assert box.decide(first, box.finish(first, new=-0.3)).status == "abstained"
    box.store.append([ExclusionRow(MAILBOX, "val0-1", None, "late merge across splits", 1, box.now)])
    assert claimed(box).new_windows == (0,)
