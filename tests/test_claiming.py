"""The daemon asks for no run that could not be carried out, says why once, and asks when it can be."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path

import pytest

from pipeline.config.settings import ModelSettings, PlanSettings, Settings, TrainSettings
from pipeline.store.rows import MailboxRow, RequestRow
from streams.daemon.board import Board
from streams.daemon.claiming import Claiming
from streams.owning.held import HeldStore
from tests.support.finished import START, Finished
from tests.support.lineage import MAILBOX

NOT_POSSIBLE = {
    "room": (Settings(auto_retrain=True, plan=PlanSettings(gpu_gib=1e-6)), "too little for the longest chunk alone"),
    "base": (Settings(auto_retrain=True, model=ModelSettings(base="no/such-model")), "neither a folder nor in the Hub"),
    "tracker": (Settings(auto_retrain=True, train=TrainSettings(report_to=("wandb",))), "report_to asks for wandb"),
}


@pytest.mark.parametrize("case", NOT_POSSIBLE)
def test_what_cannot_be_carried_out_is_not_asked_for(
    case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, why = NOT_POSSIBLE[case]
    found = Finished.at(tmp_path / "home")
    with found.store as store:
        store.append([MailboxRow(MAILBOX, "arrival", START)])
        found.close_window()
        board = Board(1, datetime(2026, 1, 1), ("all",))
        claiming = Claiming(found.home, settings, HeldStore(store), board)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # as where no tracker is installed
        with caplog.at_level(logging.WARNING):
            assert [claiming.claim(), claiming.claim()] == [False, False]
        assert store.fetch(RequestRow) == []
        assert [why in record.message for record in caplog.records] == [True]
        assert (board.state.training.doing, why in board.state.training.text) == ("waiting", True)
        assert Claiming(found.home, Settings(auto_retrain=True), HeldStore(store), board).claim()
        assert len(store.fetch(RequestRow)) == 1
