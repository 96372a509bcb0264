"""Several processes that train one run: the same chunks in the same steps as one process, whoever is killed on the way."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from pipeline.config.settings import ModelSettings, TrainSettings
from pipeline.home import sha256_file
from pipeline.runs.plan import EXCLUSIONS, prepare_run
from pipeline.runs.requests import RunRequest
from pipeline.runs.runfiles import read_exclusions, read_losses
from retrain.models.adapters import CONFIG, WEIGHTS
from retrain.models.base import find_base
from retrain.models.model import choose_compute
from retrain.processes.join import main as join_main
from retrain.processes.launch import RanksVanished, train_together
from retrain.processes.shares import shared_passes, shares
from retrain.progress import Progress
from retrain.study import CHECKPOINTS, open_study
from retrain.training import checkpoints
from retrain.training.batches import Example
from retrain.training.metrics import METRICS, StepRecord, read_metrics
from retrain.training.to_the_end import train
from tests.support.mailroom import TINY, Mailroom, tiny_settings
from tests.support.ports import free_ports

MODEL = ModelSettings(builtin=TINY, dtype="float32")
"""Rounding of float32 is small enough to tell from another loss."""


def quiet(progress: Progress) -> None:
    """Hears nothing."""


def examples(*lengths: int) -> list[Example]:
    return [Example(f"c{place}", tuple(range(length)), 1, 0) for place, length in enumerate(lengths)]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_chunk_is_one_process_s_and_all_make_as_many_passes(count: int) -> None:
    for chunks in (examples(), examples(9), examples(200, 7, 120, 60, 64, 3, 199, 80, 5)):
        passes = shared_passes(chunks, count, 128)
        assert len(passes) == count and len({len(own) for own in passes}) == 1 and passes[0:1] != [[]]
        taken = [example.chunk_id for own in passes for group in own for example in group]
        assert sorted(taken) == sorted(example.chunk_id for example in chunks)
        assert shared_passes(chunks[::-1], count, 128) == passes
    assert [sum(len(e.ids) for e in share) for share in shares(examples(50, 40, 30, 20), 2)] == [70, 70]


class Ran:
    """A run of the same request, trained by ``processes``, on a base that was made before; ``how`` are further settings."""

    def __init__(self, root: Path, processes: int, base: Path | None = None, **how: Any) -> None:
        settings = TrainSettings(
            epochs=2, batch_tokens=512, checkpoint_every=4, lora_r=4, lora_alpha=8, threads=1, processes=processes, **how
        )
        room = Mailroom(root, tiny_settings(train=settings, model=MODEL))
        room.close()
        self.home = room.home
        self.request: RunRequest = room.ask()
        self.folder = self.home.run(self.request.run_id)
        self.base = self.home.root / self.request.base.path
        if base is not None:
            shutil.copytree(base, self.base)
        prepare_run(self.home, self.request, self.folder)

    def alone(self) -> None:
        """Trains in this process, making the base first."""
        prepared = prepare_run(self.home, self.request, self.folder)
        exclusions = read_exclusions(self.folder / EXCLUSIONS, self.request.exclusions_sha256)
        compute = choose_compute(MODEL, 1)
        base = find_base(self.home, self.request, exclusions, compute, lambda record: None)
        assert train(open_study(self.home, self.request, prepared, exclusions, base, compute), self.folder, quiet) is None

    def together(self, observe: Callable[[Progress], None] = quiet) -> None:
        train_together(self.home, self.request.run_id, self.request.settings.train, observe)

    @property
    def steps(self) -> list[StepRecord]:
        return read_metrics(self.folder / METRICS)

    @property
    def last(self) -> Path:
        return checkpoints.find(self.folder / CHECKPOINTS)[-1].folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    run = Ran(tmp_path_factory.mktemp("alone"), 1)
    run.alone()
    return run


@pytest.fixture(scope="module")
def pair(alone: Ran, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Trained by two processes, undisturbed."""
    run = Ran(tmp_path_factory.mktemp("pair"), 2, alone.base)
    run.together()
    return run


def trained_alike(run: Ran, reference: Ran) -> None:
    """The same steps over the same tokens, and losses that rounding alone sets apart."""
    assert run.request.run_id == reference.request.run_id
    assert sha256_file(run.folder / "schedule.parquet") == sha256_file(reference.folder / "schedule.parquet")
    assert [(x.step, x.steps, x.epoch, x.tokens, x.lr) for x in run.steps] == [
        (x.step, x.steps, x.epoch, x.tokens, x.lr) for x in reference.steps
    ]
    assert [x.loss for x in run.steps] == pytest.approx([x.loss for x in reference.steps], rel=1e-4)
    own, others = read_losses(run.last / checkpoints.LOSSES), read_losses(reference.last / checkpoints.LOSSES)
    assert [(x.chunk_id, x.n_tokens) for x in own] == [(x.chunk_id, x.n_tokens) for x in others] != []
    assert [x.nll for x in own] == pytest.approx([x.nll for x in others], rel=1e-3)


def members() -> list[psutil.Process]:
    """The processes that train together below this one."""
    below = psutil.Process().children(recursive=True)
    return [
        process for process in below if "retrain.processes.together" in process.cmdline() and "RANK" in process.environ()
    ]


def kill_one(progress: Progress) -> None:
    """Kills the second of them between two checkpoints."""
    if progress.step == "train" and progress.done == 6:
        for process in members():
            if process.environ()["RANK"] == "1":
                process.kill()


def killed_and_resumed(root: Path, base: Path, **how: Any) -> Ran:
    run = Ran(root, 2, base, **how)
    with pytest.raises(RanksVanished, match="killed by signal 9"):
        run.together(kill_one)
    assert members() == []
    assert run.last.name == "step-000004"
    run.together()
    return run


@pytest.mark.timeout(900)  # three processes import torch on however few cores
def test_two_processes_train_what_one_trains(alone: Ran, pair: Ran) -> None:
    trained_alike(pair, alone)
    assert {path.stat().st_mode & 0o777 for path in pair.last.iterdir()} == {0o600}
    assert members() == []


@pytest.mark.timeout(900)
def test_two_machines_that_share_the_model_out_train_what_one_process_trains(
    alone: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two launchers that know nothing of each other but an address, each with a process that holds half of an NF4 base."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    (port,) = free_ports(1)
    run = Ran(tmp_path, 1, alone.base, machines=2, address=f"127.0.0.1:{port}", shard=True)
    command = [sys.executable, "-m", "retrain.processes.join", str(run.home.root), run.request.run_id, "1"]
    heard: list[Progress] = []
    with subprocess.Popen(command) as other:
        try:
            run.together(heard.append)
            assert other.wait(600) == 0
        finally:
            other.kill()
    assert "retrain.processes.join" in heard[0].text
    trained_alike(run, alone)
    theirs, own = load_file(alone.last / WEIGHTS), load_file(run.last / WEIGHTS)
    assert theirs.keys() == own.keys()
    for name, weight in own.items():
        torch.testing.assert_close(weight, theirs[name], rtol=1e-2, atol=1e-4)
    assert (run.last / CONFIG).read_bytes() == (alone.last / CONFIG).read_bytes()


def test_only_a_machine_of_the_run_may_join(alone: Ran, capsys: pytest.CaptureFixture[str]) -> None:
    assert join_main([str(alone.home.root), alone.request.run_id, "1"]) == 1
    assert "trained by 1 machines, of which 1 is none that joins" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_killed_process_changes_no_bit_of_what_two_train(pair: Ran, tmp_path: Path) -> None:
    same_bits(killed_and_resumed(tmp_path, pair.base), pair)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_killed_process_changes_no_bit_of_what_two_train_that_share_the_model_out(alone: Ran, tmp_path: Path) -> None:
    undisturbed = Ran(tmp_path / "undisturbed", 2, alone.base, shard=True)
    undisturbed.together()
    same_bits(killed_and_resumed(tmp_path / "killed", alone.base, shard=True), undisturbed)


def same_bits(killed: Ran, undisturbed: Ran) -> None:
    assert [x.loss for x in killed.steps] == [x.loss for x in undisturbed.steps]
    assert sha256_file(killed.last / WEIGHTS) == sha256_file(undisturbed.last / WEIGHTS)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_four_processes_train_what_one_trains(alone: Ran, tmp_path: Path) -> None:
    run = Ran(tmp_path, 4, alone.base)
    run.together()
    trained_alike(run, alone)
