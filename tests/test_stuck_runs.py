"""Runs that cannot go on until a person mends something: none is forgotten, whatever else happens beside it."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path

import pytest

from pipeline.errors import RunError
from pipeline.events import Event, RunFinished, RunRequested
from pipeline.home import write_atomic
from pipeline.runs.requests import REQUEST
from pipeline.store.rows import DeliveryRow, MailboxRow
from streams.bus.contract import Interrupted
from streams.bus.embedded import EmbeddedBus
from streams.daemon.board import Board
from streams.daemon.training import Training
from streams.owning.held import HeldStore
from streams.runs.retraining import Retraining, subscribe_training
from streams.runs.runner import OnStep, Runner, Step
from tests.support.daemons import until
from tests.support.finished import START, Finished
from tests.support.lineage import MAILBOX


class FullDisk(Runner):
    def run(self, run_id: str, on_step: OnStep) -> None:
        raise RunError("No space left on device")


class StoppedWhileStarting(Runner):
    def _started(self):  # type: ignore[no-untyped-def]
        self.stop()
        return super()._started()


def replayed(held: HeldStore) -> bool:
    with held.reading() as store:
        return bool(store.fetch(DeliveryRow, "outcome = 'replayed'"))


def unheard(step: Step) -> None:
    pass


def test_the_fault_of_one_mailbox_is_known_after_another_went_on(tmp_path: Path) -> None:
    found = Finished.at(tmp_path / "home")
    with found.store as store:
        found.close_window()
        asked = found.request()
        write_atomic(found.home.run(asked.run_id) / REQUEST, asked.model_dump_json().encode())
        bus = EmbeddedBus(lambda: nullcontext(store))
        retraining = Retraining(found.home, found.settings, lambda: nullcontext(store), FullDisk(found.home), bus, unheard)
        stuck = RunRequested(mailbox="other", run_id="f" * 12, windows=(0,))
        failed = RunFinished(mailbox=MAILBOX, run_id=asked.run_id, ok=False, detail="it cannot be")
        bus.publish([Event.of(stuck, at=START), Event.of(failed, at=START)])
        bus.deliver()
        assert retraining.decisions[asked.run_id].status == "failed"
        assert [(name, fault.message) for name, fault in retraining.faults.items()] == [
            ("other", "No space left on device")
        ]


def test_a_daemon_takes_up_what_was_set_aside_before_it_started(tmp_path: Path) -> None:
    found = Finished.at(tmp_path / "home")
    with found.store as store:
        store.append([MailboxRow(MAILBOX, "arrival", START)])
        found.close_window()
        asked = found.request()
        before = EmbeddedBus(lambda: nullcontext(store))
        subscribe_training(before, lambda event: FullDisk(found.home).run(asked.run_id, unheard))
        before.publish([Event.of(RunRequested(mailbox=MAILBOX, run_id=asked.run_id, windows=asked.new_windows), at=START)])
        before.deliver()
        assert [dead.error for dead in before.dead()] == ["RunError: No space left on device"]
        held, stop = HeldStore(store), threading.Event()
        training = Training(found.home, found.settings, held, Board(1, datetime(2026, 1, 1), ("all",)), stop)
        thread = threading.Thread(target=training.run)
        thread.start()
        try:
            until(lambda: replayed(held))
        finally:
            stop.set()
            training.stop()
            thread.join()


def test_a_stop_while_the_training_process_starts_ends_it(tmp_path: Path) -> None:
    found = Finished.at(tmp_path / "home")
    found.store.close()
    with StoppedWhileStarting(found.home) as runner, pytest.raises(Interrupted, match="training was stopped"):
        runner.run("0" * 12, unheard)
