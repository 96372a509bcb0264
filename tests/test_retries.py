"""A run that improves too little trains again, keeps the best attempt, and no crash changes a byte of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config.settings import ModelSettings, RetrySettings, TrainSettings
from pipeline.home import sha256_file, sha256_folder
from pipeline.runs.attempts import ATTEMPTS, Attempts, read_attempts, write_attempts
from pipeline.runs.requests import RunRequest, RunResult
from retrain.progress import Progress
from retrain.run import execute
from retrain.training.metrics import read_metrics
from retrain.training.retries import MOVED, settled
from streams.runs.course import course_of, kept_checkpoint
from tests.support.mailroom import TINY, Mailroom, tiny_settings

RETRY = RetrySettings(attempts=2, threshold=0.05, factor=0.5)


def test_the_best_attempt_is_kept_once_one_is_enough_or_none_is_left() -> None:
    one = Attempts(before=5.0).after(10, 4.99, 1e-3, RETRY)
    assert one.kept is None
    assert one.next_lr(1e-3, RETRY) == 5e-4
    assert one.after(5, 4.94, 5e-4, RETRY).kept == 2
    two = one.after(5, 5.2, 5e-4, RETRY)
    assert (two.kept, two.next_lr(1e-3, RETRY)) == (None, 2.5e-4)
    assert two.after(5, 4.99, 2.5e-4, RETRY).kept == 1
    assert two.after(5, 4.98, 2.5e-4, RETRY).kept == 3
    assert Attempts(before=5.0).after(10, 4.9, 1e-3, RETRY).kept == 1


def attempt_files(folder: Path, text: str) -> None:
    (folder / "checkpoints" / "step-000004").mkdir(parents=True)
    (folder / "checkpoints" / "step-000004" / "weights").write_text(text)
    (folder / "metrics.jsonl").write_text(text)


@pytest.mark.parametrize("kept", [1, 2, 3])
@pytest.mark.parametrize("moves", range(7))
def test_a_kill_between_two_moves_loses_nothing(
    kept: int, moves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        pass

    left = [moves]
    plainly = Path.replace

    def killed(self: Path, target: str | Path) -> Path:
        if self.name in MOVED:
            if not left[0]:
                raise Killed
            left[0] -= 1
        return plainly(self, target)

    attempts = Attempts(before=5.0)
    monkeypatch.setattr(Path, "replace", killed)
    for number in (1, 2, 3):
        attempt_files(tmp_path, f"attempt {number}")
        attempts = attempts.after(4, 4.99 - (0.01 if number == kept else 0), 1e-3, RETRY)
        write_attempts(tmp_path, attempts)
        try:
            settled(tmp_path)
        except Killed:
            left[0] = 99
            settled(tmp_path)
        assert settled(tmp_path) == attempts
    assert attempts.kept == kept
    assert (tmp_path / "checkpoints" / "step-000004" / "weights").read_text() == f"attempt {kept}"
    assert (tmp_path / "metrics.jsonl").read_text() == f"attempt {kept}"
    others = [number for number in (1, 2, 3) if number != kept]
    for number in others:
        assert (tmp_path / "attempts" / str(number) / "metrics.jsonl").read_text() == f"attempt {number}"
        assert list((tmp_path / "attempts" / str(number) / "checkpoints").iterdir()) == []


def room_that_retries(root: Path, threshold: float) -> tuple[Mailroom, RunRequest]:
    """The first attempt's learning rate is far too high; the second's is not."""
    retry = RetrySettings(attempts=1, threshold=threshold, factor=0.01)
    train = TrainSettings(
        epochs=1, batch_tokens=512, checkpoint_every=4, lora_r=4, lora_alpha=8, threads=1, lr=0.3, retry=retry
    )
    room = Mailroom(root, tiny_settings(min_threads=1, model=ModelSettings(builtin=TINY), train=train))
    room.close(48)
    return room, room.ask()


def quiet(progress: Progress) -> None:
    """Hears nothing."""


heard: list[Progress] = []
"""What the undisturbed run said."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Mailroom, RunRequest, RunResult]:
    room, request = room_that_retries(tmp_path_factory.mktemp("home"), 0.02)
    return room, request, execute(room.home, request.run_id, heard.append)


def bytes_of(room: Mailroom, request: RunRequest) -> dict[str, str]:
    folder = room.home.run(request.run_id)
    files = {name: sha256_file(folder / name) for name in ("losses.parquet", "coverage.parquet", ATTEMPTS)}
    return {**files, "adapter": sha256_folder(room.home.adapter(request.adapter_id))}


def test_another_attempt_is_made_and_each_is_recorded(undisturbed: tuple[Mailroom, RunRequest, RunResult]) -> None:
    room, request, result = undisturbed
    folder = room.home.run(request.run_id)
    attempts = read_attempts(folder)
    assert attempts is not None and result.attempts == attempts.made
    assert [attempt.lr for attempt in attempts.made] == pytest.approx([0.3, 0.003])
    assert attempts.kept == 2
    assert attempts.made[1].loss < attempts.before - 0.02 < attempts.made[0].loss
    assert max(record.lr for record in read_metrics(folder / "metrics.jsonl")) == pytest.approx(0.003)
    assert max(record.lr for record in read_metrics(folder / "attempts" / "1" / "metrics.jsonl")) == pytest.approx(0.3)
    assert len(read_metrics(folder / "metrics.jsonl")) == result.steps
    first, second = attempts.made
    course = course_of(room.home, request, result)
    assert course == (
        f"attempt 1, learning rate 0.3: loss {attempts.before:.3f} -> {first.loss:.3f} at step {first.step}",
        f"attempt 2, learning rate 0.003: loss {attempts.before:.3f} -> {second.loss:.3f} at step {second.step}, kept",
    )
    early = course_of(room.home, request, result.model_copy(update={"steps": result.steps - 1}))
    assert f"stopped early after step {result.steps - 1} of {result.steps}" in early[-1]
    assert "the lowest perplexity" in kept_checkpoint(folder, result)
    (said,) = [one.text for one in heard if one.step == "train" and not one.total]
    assert said.startswith("attempt 2 of at most 2, learning rate 0.003: the loss fell by -")
    assert {one.text.partition(",")[0] for one in heard if one.loss is not None and one.step == "train"} == {
        "attempt 1 of at most 2",
        "attempt 2 of at most 2",
    }


def test_off_by_default_and_enough_at_once_is_one_attempt(tmp_path: Path) -> None:
    assert TrainSettings().retry.attempts == 0
    room, request = room_that_retries(tmp_path, 0.0)
    generous = request.settings.train.model_copy(update={"lr": 0.003})
    room.lineage.settings = request.settings.model_copy(update={"train": generous})
    request = room.ask()
    result = execute(room.home, request.run_id, quiet)
    assert [attempt.number for attempt in result.attempts] == [1]
    assert not (room.home.run(request.run_id) / "attempts").exists()


def test_where_val_is_too_small_to_choose_a_run_trains_once_and_says_so(tmp_path: Path) -> None:
    room, request = room_that_retries(tmp_path, 9.0)
    room.lineage.settings = request.settings.model_copy(update={"min_threads": 20})
    request = room.ask()
    said: list[Progress] = []
    result = execute(room.home, request.run_id, said.append)
    assert result.attempts == () and not (room.home.run(request.run_id) / ATTEMPTS).exists()
    (notice,) = [one.text for one in said if one.step == "train" and not one.total]
    assert notice.startswith("no early stopping and no second attempt: val holds fewer than 40 threads")


class Crash(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(lambda p: p.step == "train" and p.text.startswith("attempt 2"), id="between"),
        pytest.param(lambda p: p.step == "train" and p.done == 6 and p.loss is not None and p.loss < 9, id="second"),
    ],
)
def test_a_crash_anywhere_changes_no_byte(
    undisturbed: tuple[Mailroom, RunRequest, RunResult], moment: Callable[[Progress], bool], tmp_path: Path
) -> None:
    room, request = room_that_retries(tmp_path, 0.02)

    def fall(progress: Progress) -> None:
        if moment(progress):
            raise Crash

    with pytest.raises(Crash):
        execute(room.home, request.run_id, fall)
    execute(room.home, request.run_id, quiet)
    assert bytes_of(room, request) == bytes_of(*undisturbed[:2])
