"""Retrains through the command line: killed anywhere and run again, they end as if nothing had happened."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.home import Home, sha256_file, sha256_folder
from streams.demo.mailbox import write_mailbox
from tests.support.dump import rows_of
from tests.support.kills import run_killed

SETTINGS = (
    "seed=5",
    "split.train=0.5",
    "split.val=0.4",
    "window.bootstrap=150",
    "window.count=75",
    "window.age=null",
    "chunk.max_tokens=256",
    "model.builtin.vocabulary=512",
    "model.builtin.width=64",
    "model.builtin.layers=2",
    "model.builtin.heads=2",
    "model.builtin.context=256",
    "model.builtin.base_tokens=20000",
    "train.checkpoint_every=4",
    "train.batch_tokens=1024",
    "train.threads=1",
    "gate.max_loss=1.0",
    "gate.max_drift=1.0",
)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
EXACT = (
    "request.json",
    "manifest.parquet",
    "schedule.parquet",
    "coverage.parquet",
    "losses.parquet",
    "best_checkpoint.txt",
)


def mailtide(home: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "streams.cli", "--home", str(home), *arguments]


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        mailtide(home, *arguments), capture_output=True, text=True, timeout=280, check=False, env=ENVIRONMENT
    )


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with three closed windows, to be copied."""
    root = tmp_path_factory.mktemp("imported")
    home, key, archive = root / "home", root / "people.key", root / "demo.mbox"
    write_mailbox(archive, seed=5, messages=300)
    key.write_text("5a" * 32)
    options = [part for setting in SETTINGS for part in ("--set", setting)]
    for arguments in (("init", "--people-key", str(key), *options), ("import", str(archive), "--clock", "header")):
        done = run(home, *arguments)
        assert done.returncode == 0, done.stderr
    return home


def artefacts(home: Home) -> dict[str, str]:
    """Digests of all that a run must leave alike: the run's files, and the adapters."""
    found = {f"{run.name}/{name}": sha256_file(run / name) for run in home.runs.iterdir() if run.is_dir() for name in EXACT}
    found |= {folder.name: sha256_folder(folder) for folder in home.adapters.iterdir()}
    return found


def decided(home: Home) -> dict[str, object]:
    """The rows that runs add, times apart; receipts hold times, and so do the details that name their digests."""
    rows = rows_of(home)
    names = ("requests", "adapter_rows", "journal_rows", "trained_rows", "loss_rows", "metric_rows", "chunk_rows")
    found: dict[str, object] = {name: rows[f"store.{name}"] for name in names}
    found["statuses"] = sorted(row[:2] for row in rows["store.run_events"])
    return found


@pytest.fixture(scope="module")
def undisturbed(imported: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = shutil.copytree(imported, tmp_path_factory.mktemp("undisturbed") / "home")
    done = run(home, "retrain", "--confirm", "--each", "--json")
    assert done.returncode in (0, 3), done.stderr
    reports = json.loads(done.stdout)
    assert [report["windows"][-1] for report in reports] == [0, 1, 2]
    assert all(report["steps"] > 4 and report["new_after"] is not None for report in reports)
    return Home(home)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(2))
def test_kills_leave_the_same_adapters_and_verdicts(imported: Path, undisturbed: Home, tmp_path: Path, seed: int) -> None:
    home = shutil.copytree(imported, tmp_path / "home")
    lives = run_killed(
        mailtide(home, "retrain", "--confirm", "--each"),
        env={"OMP_NUM_THREADS": "1"},
        kills=5,
        seed=seed,
        delay=(4.0, 20.0),
        limit=800,
        accept=(0, 3),
    )
    assert lives.kills >= 3
    assert artefacts(Home(home)) == artefacts(undisturbed)
    assert decided(Home(home)) == decided(undisturbed)


@pytest.mark.slow
def test_what_was_decided_is_not_asked_again(undisturbed: Home) -> None:
    before = decided(undisturbed)
    again = run(undisturbed.root, "retrain", "--confirm", "--each")
    assert again.returncode == 3
    assert again.stderr.startswith("mailtide: ")
    assert decided(undisturbed) == before


@pytest.mark.slow
def test_receipts_verify_and_one_changed_byte_is_found(undisturbed: Home) -> None:
    assert run(undisturbed.root, "registry", "verify").returncode == 0
    adapter = sorted(undisturbed.adapters.iterdir())[0]
    weights = adapter / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    changed = run(undisturbed.root, "registry", "verify")
    data[-1] ^= 1
    weights.write_bytes(data)
    assert changed.returncode == 1
    assert adapter.name in changed.stdout


@pytest.mark.slow
def test_the_champion_is_linked_and_can_be_left_and_returned_to(undisturbed: Home) -> None:
    listed = json.loads(run(undisturbed.root, "registry", "list", "--json").stdout)
    champions = [row["adapter_id"] for row in listed if row["status"] == "champion"]
    former = [row["adapter_id"] for row in listed if row["status"] == "superseded"]
    assert len(champions) == 1
    link = undisturbed.champion_link("main")
    assert link.resolve() == undisturbed.adapter(champions[0]).resolve()
    assert former, "the margins let more than one adapter through"
    back = run(undisturbed.root, "registry", "rollback", former[-1], "--reason", "a test")
    assert back.returncode == 0, back.stderr
    assert link.resolve() == undisturbed.adapter(former[-1]).resolve()
    plan = run(undisturbed.root, "plan", "--json")
    assert plan.returncode == 0, plan.stderr
    assert json.loads(plan.stdout)["windows"], "what the former champion had not learned is new again"
