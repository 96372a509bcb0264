"""A GPU that is gone: told apart, nothing lost, and no processor put in its place."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config.settings import Settings
from pipeline.errors import RunError
from pipeline.events import Event, RunRequested
from pipeline.home import Home, write_atomic
from pipeline.times import utc_now
from retrain.progress import Progress
from retrain.run import execute
from retrain.training.lost_device import DEVICE, DeviceGone, is_device_lost, require_same_device
from retrain.worker import serve
from streams.bus.embedded import EmbeddedBus
from streams.owning.stores import opener
from streams.runs.faults import tells_of_lost_device
from streams.runs.retraining import Trainer
from streams.runs.runner import OnStep, Runner
from tests.support.mailroom import Mailroom

LOST = "CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronously reported"


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError(LOST), True),
        (RuntimeError("No CUDA-capable device: no CUDA-capable device is detected"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (RuntimeError("CUDA out of memory"), False),
        (ValueError(LOST), False),
    ],
)
def test_it_is_told_apart_from_what_a_run_does_wrong(error: Exception, lost: bool) -> None:
    assert is_device_lost(error) is lost


def test_the_process_says_so_and_ends_as_it_can_compute_nothing_more() -> None:
    def job(run_id: str, observe: Callable[[Progress], None]) -> None:
        raise RuntimeError(LOST)

    answers = io.StringIO()
    serve(io.StringIO('{"run_id": "one"}\n{"run_id": "two"}\n'), answers, job)
    (said,) = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert said["error"] == "the GPU is gone (CUDA error: unspecified launch failure)"
    assert "goes on from its checkpoint" in said["hint"]
    assert tells_of_lost_device(said["error"])


def test_a_run_begun_on_a_gpu_waits_for_it(tmp_path: Path) -> None:
    room = Mailroom(tmp_path)
    room.close()
    request = room.ask()
    folder = room.home.run(request.run_id)

    class Crash(Exception):
        pass

    def fall(progress: Progress) -> None:
        if progress.step == "train" and progress.done == 6:
            raise Crash

    with pytest.raises(Crash):
        execute(room.home, request.run_id, fall)
    assert json.loads((folder / DEVICE).read_text())["gpu"] is False
    kept = sorted(path.name for path in (folder / "checkpoints").iterdir())
    write_atomic(folder / DEVICE, json.dumps({"gpu": True, "name": "NVIDIA H100"}).encode())
    with pytest.raises(DeviceGone, match="the run began on NVIDIA H100, and there is none here") as told:
        execute(room.home, request.run_id, lambda progress: None)
    assert tells_of_lost_device(told.value.message)
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == kept
    assert not (folder / "result.json").exists()


def test_before_the_first_checkpoint_any_device_will_do(tmp_path: Path) -> None:
    require_same_device(tmp_path, gpu=True, name="NVIDIA H100", begun=False)
    require_same_device(tmp_path, gpu=False, name="cpu", begun=False)
    require_same_device(tmp_path, gpu=True, name="NVIDIA H200", begun=True)
    with pytest.raises(DeviceGone):
        require_same_device(tmp_path, gpu=False, name="cpu", begun=True)


def test_the_run_stays_undecided(tmp_path: Path) -> None:
    class Gone(Runner):
        def run(self, run_id: str, on_step: OnStep) -> None:
            raise RunError("the GPU is gone (CUDA error: GPU is lost)", hint="bring it back")

    told: list[Event] = []
    bus = EmbeddedBus(opener(Home(tmp_path), Settings()))
    bus.publish = told.extend  # type: ignore[assignment,method-assign]
    asked = Event.of(RunRequested(mailbox="main", run_id="0a", windows=(0,)), at=utc_now())
    with pytest.raises(RunError, match="the GPU is gone"):
        Trainer(Home(tmp_path), Gone(Home(tmp_path)), bus, lambda step: None).train(asked)
    assert told == []
