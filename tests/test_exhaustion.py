"""Memory that really runs out: the system refuses it to a training process, and the run goes on in smaller passes.

The limit is on the process's address space (RLIMIT_AS), set in the midst of training and lifted when the replies are
written; what torch then raises is its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.capacity.passes import read_changes, write_changes
from pipeline.config.settings import BuiltinModel, ModelSettings, TrainSettings
from pipeline.home import sha256_file, sha256_folder
from pipeline.runs.requests import RunResult
from retrain.run import execute
from retrain.training.exhaustion import is_out_of_memory
from retrain.training.metrics import read_metrics
from tests.conftest import REPOSITORY
from tests.support.mailroom import Mailroom, tiny_settings
from tests.support.program import ENVIRONMENT

WIDE = BuiltinModel(vocabulary=65_536, width=64, layers=1, heads=2, context=256, base_tokens=1024)
"""Logits of a batch take hundreds of megabytes here, everything else a few."""
STEPS, LIMITED_AT = 4, 3

PROGRAM = """
import json, resource, sys
from pathlib import Path
from pipeline.errors import MailtideError
from pipeline.home import Home
from retrain.offline import keep_offline
keep_offline()
from retrain.run import execute

def observe(progress):
    if progress.step == "train" and progress.done == LIMITED_AT and not limited:
        limited.append(True)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        batch = int(progress.text.split()[-2].replace(",", "")) // progress.done  # tokens so far, of so many like batches
        most = pages * resource.getpagesize() + round(SPARE * batch * VOCABULARY * 4)
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
    if progress.step == "replies":  # what writing and measuring replies imports is no concern of a batch's memory
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

limited = []
LIMITED_AT, VOCABULARY, SPARE = int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
try:
    execute(Home(Path(sys.argv[1])), sys.argv[2], observe)
except MailtideError as error:
    print(json.dumps([error.message, error.hint]))
    sys.exit(3)
"""


def room_to_train(root: Path, **train: Any) -> tuple[Mailroom, str]:
    """A run of four steps, each one batch of all its chunks."""
    settings = TrainSettings(
        epochs=STEPS, batch_tokens=1 << 16, pass_tokens=1 << 16, checkpoint_every=2, lora_r=4, lora_alpha=8, threads=1,
        **train,
    )  # fmt: skip
    room = Mailroom(root, tiny_settings(train=settings, model=ModelSettings(builtin=WIDE, dtype="float32", quantize=False)))
    room.close(12)
    return room, room.ask().run_id


def trained_with(room: Mailroom, run_id: str, spare: float) -> subprocess.CompletedProcess[str]:
    """The run in a process of its own, which after step 3 is given a little more memory than it has then, and no more:
    ``spare`` times what the logits of one batch take in float32. A whole batch needs three times that, half a batch 1.5."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(room.home.root), run_id, str(LIMITED_AT), str(WIDE.vocabulary), str(spare)],
        capture_output=True, text=True, check=False, cwd=REPOSITORY, env={**ENVIRONMENT, "MALLOC_ARENA_MAX": "1"},
    )  # fmt: skip


def test_a_run_goes_on_from_its_checkpoint_with_half_as_much_at_once(tmp_path: Path) -> None:
    room, run_id = room_to_train(tmp_path / "limited")
    done = trained_with(room, run_id, 2.2)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = room.home.run(run_id)
    changes = read_changes(folder)
    assert [change.after_step for change in changes] == [2], done.stderr
    result = RunResult.model_validate_json((folder / "result.json").read_bytes())
    assert result.passes == changes
    assert [record.step for record in read_metrics(folder / "metrics.jsonl")] == list(range(1, STEPS + 1))

    # The record is all it takes to get the same bytes where memory suffices.
    again, same = room_to_train(tmp_path / "again")
    assert same == run_id
    write_changes(again.home.run(run_id), changes)
    execute(again.home, run_id, lambda progress: None)
    adapters = [sha256_folder(one.home.adapter(f"a{run_id}")) for one in (room, again)]
    assert adapters[0] == adapters[1]
    for name in ("manifest.parquet", "schedule.parquet", "losses.parquet"):
        assert sha256_file(folder / name) == sha256_file(again.home.run(run_id) / name)


def test_what_is_too_much_one_chunk_at_a_time_is_told(tmp_path: Path) -> None:
    room, run_id = room_to_train(tmp_path)
    done = trained_with(room, run_id, 0.02)
    assert done.returncode == 3, done.stderr
    message, hint = json.loads(done.stdout.splitlines()[-1])
    assert "memory ran out" in message
    assert hint


def test_code_that_cannot_be_placed_is_memory_unless_code_is_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("could not create a primitive")
    assert is_out_of_memory(error)

    def forbidden(*args: Any, **options: Any) -> None:
        raise PermissionError

    monkeypatch.setattr("mmap.mmap", forbidden)
    assert not is_out_of_memory(error)
