"""What is said of a run while it trains: pace and time left from its steps, in words, on the board and in the log."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from contextlib import nullcontext
from datetime import datetime

import pytest

from pipeline.events import Event, RunRequested
from pipeline.home import Home
from retrain.training.metrics import StepRecord
from retrain.training.pace import Pacing
from streams.bus.embedded import EmbeddedBus
from streams.cli.output import progress as shown
from streams.daemon.board import Board, TrainingState
from streams.daemon.wording import training_line
from streams.runs.retraining import Trainer
from streams.runs.runner import OnStep, Runner, Step, WorkerDied
from streams.runs.telling import LOG_EVERY_SECONDS, NowAndThen, step_line, time_left
from tests.support.stored import empty_mailbox


def record(step: int, tokens: int, seconds: float) -> StepRecord:
    return StepRecord(step, 100, 0, 4.0, 1e-3, tokens, seconds)


def test_the_pace_is_that_of_recent_steps_and_the_time_left_that_of_all() -> None:
    pacing = Pacing(10_000)
    first = pacing.after(record(1, 100, 1.0))
    assert first is not None and (first.tokens_per_second, first.seconds_left) == (100.0, 99.0)
    for step in range(2, 11):
        pacing.after(record(step, 100 * step, 1.0 * step))
    for step in range(11, 41):  # ten times as fast from here on
        found = pacing.after(record(step, 100 * step, 10 + 0.1 * (step - 10)))
    assert found is not None
    assert found.tokens_per_second == pytest.approx(1000)
    assert found.seconds_left == pytest.approx((10_000 - 4_000) / (4_000 / 13))


def test_a_resumed_run_takes_no_credit_for_the_steps_before_it() -> None:
    pacing = Pacing(10_000)
    assert pacing.after(record(51, 5_100, 0.5)) is None
    found = pacing.after(record(52, 5_200, 1.5))
    assert found is not None and (found.tokens_per_second, found.seconds_left) == (100.0, 48.0)


def test_the_end_leaves_no_time() -> None:
    pacing = Pacing(300)
    found = [pacing.after(record(step, 100 * step, step)) for step in (1, 2, 3)][-1]
    assert found is not None and found.seconds_left == 0.0


TRAINING = Step("0a", "train", 30, 120, "epoch 1, 4100 tokens", 4.1234, 3400.4, 250.0)


def test_a_step_in_one_line() -> None:
    assert step_line(TRAINING) == "train step 30 of 120, loss 4.123, 3,400 tokens/s, 4 min left, epoch 1, 4100 tokens"
    assert step_line(Step("0a", "train", 30, 0, "memory ran out")) == "train: memory ran out"
    assert step_line(Step("0a", "evaluate", 1, 2, "a1 step-000050")) == "evaluate a1 step-000050"
    assert [time_left(seconds) for seconds in (0.4, 89, 91, 5300, 7810)] == ["0 s", "89 s", "2 min", "88 min", "2 h 10 min"]


def test_status_and_the_daemons_line_tell_the_same() -> None:
    board = Board(7, datetime(2026, 1, 1), ("train",))
    board.training_is(TrainingState.of(TRAINING))
    line = training_line(board.state)
    assert "run 0a: train step 30 of 120, loss 4.123, 3,400 tokens/s, 4 min left, epoch 1, 4100 tokens" in line
    assert board.state.training.words == step_line(TRAINING)


def test_a_notice_waits_for_no_minute(caplog: pytest.LogCaptureFixture) -> None:
    log = NowAndThen(logging.getLogger("training"), lambda: 10.0)
    with caplog.at_level(logging.INFO, "training"):
        log.hear(Step("0a", "train", 1, 10, "text"))
        log.hear(Step("0a", "train", 0, 0, "attempt 2 of at most 3"))
        log.hear(Step("0a", "train", 2, 10, "text"))
    assert [one.message for one in caplog.records] == [
        "run 0a: train step 1 of 10, text",
        "run 0a: train: attempt 2 of at most 3",
    ]


class Dying(Runner):
    """A runner whose training process is killed a few times before it carries a run out."""

    def __init__(self, home: Home, deaths: int) -> None:
        super().__init__(home)
        self.deaths = deaths

    def run(self, run_id: str, on_step: OnStep) -> None:
        if self.deaths:
            self.deaths -= 1
            raise WorkerDied("the training process was killed by signal 9")
        on_step(Step(run_id, "train", 1, 10, "text"))


def test_a_training_process_that_dies_is_told_of_when_another_one_goes_on(home: Home) -> None:
    with empty_mailbox(home) as store:
        bus = EmbeddedBus(lambda: nullcontext(store))
        steps: list[Step] = []
        asked = RunRequested(mailbox="main", run_id="0a", windows=(0,))
        Trainer(home, Dying(home, 2), bus, steps.append).train(Event.of(asked, at=datetime(2026, 1, 1)))
    died = "the training process was killed by signal 9; another one goes on from the last checkpoint"
    assert [(step.stage, step.text) for step in steps] == [
        ("start", ""),
        ("start", died),
        ("start", died),
        ("train", "text"),
    ]
    board = Board(7, datetime(2026, 1, 1), ("train",))
    board.training_is(TrainingState.of(steps[0]))
    assert training_line(board.state) == "0 windows closed, 0 runs decided; run 0a: start"
    board.closed(1)
    assert training_line(board.state).startswith("1 window closed, 0 runs decided")


def test_elsewhere_than_on_a_terminal_a_notice_is_a_line_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with shown("retrain main", guess=False) as bar:
        bar.update(1, 10, "step 1 of 10")
        bar.update(2, 10, "step 2 of 10")
        bar.update(0, 0, "train: attempt 2 of at most 3")
        bar.update(3, 10, "step 3 of 10")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["retrain main  10 % step 1 of 10", "retrain main train: attempt 2 of at most 3"]


SHOW = """
from streams.cli.output import progress
from streams.runs.runner import Step
from streams.runs.telling import step_line
with progress("retrain main", guess=False) as bar:
    step = Step("0a", "train", 30, 120, "attempt 2 of at most 3, epoch 1, 4100 tokens", 4.1234, 3400.4, 250.0)
    bar.update(step.done, step.total, step_line(step))
    bar.update(0, 0, "train: memory ran out")
"""


def test_a_narrow_terminal_shows_loss_rate_and_time_left() -> None:
    """What is cut off there is what matters least."""
    ours, theirs = os.openpty()
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm"}
    done = subprocess.run([sys.executable, "-c", SHOW], stderr=theirs, env=environment, timeout=60, check=False)
    os.close(theirs)
    with os.fdopen(ours, "rb") as terminal:
        seen = terminal.read1(100_000).decode()
    assert done.returncode == 0
    assert "retrain main train step 30 of 120, loss 4.123, 3,400 tokens/s, 4 min left" in seen
    assert "retrain main train: memory ran out" in seen


def test_a_log_hears_of_each_stage_at_once_and_of_its_steps_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    seconds = iter([10.0, 11.0, 11.0 + LOG_EVERY_SECONDS, 12.0 + LOG_EVERY_SECONDS, 13.0 + LOG_EVERY_SECONDS])
    log = NowAndThen(logging.getLogger("training"), lambda: next(seconds))
    with caplog.at_level(logging.INFO, "training"):
        for stage, done in (("train", 1), ("train", 2), ("train", 3), ("train", 4), ("evaluate", 1)):
            log.hear(Step("0a", stage, done, 10, "text"))
    assert [one.message for one in caplog.records] == [
        "run 0a: train step 1 of 10, text",
        "run 0a: train step 3 of 10, text",
        "run 0a: evaluate 10 % text",
    ]
