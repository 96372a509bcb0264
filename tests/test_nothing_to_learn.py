"""Windows that hold nothing to train on: no run is asked for, nothing fails, and they join the next that does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.arrival.people import PeopleKey
from pipeline.config.settings import GateSettings, MailboxSettings, ModelSettings, Settings, TrainSettings
from pipeline.store.rows import MailboxRow, RequestRow
from registry.spending import spending
from streams.cli.plans import tell_plan
from streams.daemon.board import Board
from streams.daemon.claiming import Claiming
from streams.owning.held import HeldStore
from streams.runs.claims import ALL_WAITING, NothingToLearn, Windows, draft
from streams.runs.planning import plan_next, require_room
from tests.support.finished import START, Finished
from tests.support.lineage import MAILBOX


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Finished]:
    finished = Finished.at(tmp_path / "home")
    PeopleKey(b"k" * 32).write(finished.home.people_key)
    with finished.store:
        yield finished


def told(box: Finished, settings: Settings, capsys: pytest.CaptureFixture[str]) -> str:
    plan = plan_next(box.store, box.home, settings, MAILBOX, ALL_WAITING)
    tell_plan(plan, settings, spending(box.store, settings.cost, START), len(plan.windows))
    return " ".join(capsys.readouterr().out.split())


def test_no_run_is_asked_for(box: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    box.close_window(train=0)
    with pytest.raises(NothingToLearn, match="hold no train chunk") as nothing:
        require_room(box.store, box.home, box.settings, MAILBOX, ALL_WAITING)
    assert (nothing.value.newest, nothing.value.exit_code) == (0, 3)
    plan = plan_next(box.store, box.home, box.settings, MAILBOX, ALL_WAITING)
    assert plan.nothing and not plan.is_possible
    assert "Nothing to train on: the new windows of main hold no train chunk; wait for the next" in told(
        box, box.settings, capsys
    )
    box.close_window()
    require_room(box.store, box.home, box.settings, MAILBOX, ALL_WAITING)
    assert draft(box.store, box.home, box.settings, MAILBOX, ALL_WAITING).new_windows == (0, 1), "they are pooled"


def test_one_by_one_they_are_passed_over_and_join_the_next(box: Finished) -> None:
    box.close_window(train=0)
    box.close_window(train=0)
    box.close_window()
    windows = Windows(each=True)
    for window in (0, 1):
        with pytest.raises(NothingToLearn) as nothing:
            require_room(box.store, box.home, box.settings, MAILBOX, windows)
        assert nothing.value.newest == window
        windows = replace(windows, past=nothing.value.newest)
    require_room(box.store, box.home, box.settings, MAILBOX, windows)
    assert draft(box.store, box.home, box.settings, MAILBOX, windows).new_windows == (0, 1, 2)


def test_an_owner_who_wrote_nothing_is_named(box: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    box.close_window()
    asked = {"model": ModelSettings(objective="reply"), "mailboxes": {MAILBOX: MailboxSettings(owner=("me@home.example",))}}
    settings = box.settings.model_copy(update=asked)
    with pytest.raises(NothingToLearn, match="hold no reply of the owner") as nothing:
        require_room(box.store, box.home, settings, MAILBOX, ALL_WAITING)
    assert "no mail of main is from me@home.example: set mailboxes.main.owner" in nothing.value.hint
    said = told(box, settings, capsys)
    assert "Replies of me@home.example (0 mails); a chunk without one is no example." in said
    assert "Next" not in said and "0 steps" not in said


def test_a_daemon_asks_for_none_and_finds_that_out_once(box: Finished, caplog: pytest.LogCaptureFixture) -> None:
    box.store.append([MailboxRow(MAILBOX, "arrival", START)])
    box.close_window(train=0)
    claiming = Claiming(box.home, Settings(auto_retrain=True), HeldStore(box.store), Board(7, START, ("train",)))
    with caplog.at_level("INFO", "streams.daemon.claiming"):
        assert not claiming.claim()
        assert not claiming.claim()
    assert [record.message for record in caplog.records] == [
        f"no run of {MAILBOX} yet: the new windows of {MAILBOX} hold no train chunk"
    ]
    assert box.store.fetch(RequestRow) == []
    box.close_window()
    assert claiming.claim()
    (request,) = box.store.fetch(RequestRow)
    assert tuple(request.windows) == (0, 1)


@pytest.mark.parametrize(
    ("train", "least", "said"),
    [
        (TrainSettings(), 20, "train.patience does nothing: val holds 8 threads, and from 40 on"),
        (TrainSettings(patience=0), 20, ""),
        (TrainSettings(), 4, ""),
    ],
)
def test_a_plan_says_when_no_checkpoint_can_be_chosen(
    box: Finished, capsys: pytest.CaptureFixture[str], train: TrainSettings, least: int, said: str
) -> None:
    box.close_window(val=8)
    settings = box.settings.model_copy(update={"train": train, "gate": GateSettings(min_threads=least)})
    text = told(box, settings, capsys)
    assert (said in text) if said else ("Checkpoints:" not in text)
