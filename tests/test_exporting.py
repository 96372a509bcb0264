"""An exported adapter is whole, private, checked by ordinary tools, and there only when all of it is as recorded."""

from __future__ import annotations

import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.errors import RegistryError, UsageError
from pipeline.home import sha256_folder, write_atomic
from pipeline.runs.requests import RunRequest
from registry.exporting import SUMS, export_adapter
from registry.receipt import RECEIPT, Receipt
from registry.verify import recorded
from streams.cli.commands import cli
from tests.support.finished import Finished, flip_a_byte

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Finished]:
    made = Finished.at(tmp_path / "home")
    yield made
    made.store.close()


def export(runs: Finished, asked: RunRequest, folder: Path) -> tuple[str, ...]:
    return export_adapter(runs.home, asked.run_id, folder, recorded(runs.store, asked.run_id))


def test_the_folder_holds_the_adapter_its_receipt_and_sums_that_hold(runs: Finished, tmp_path: Path) -> None:
    asked, _, _ = runs.step()
    folder = tmp_path / "out" / "adapter"
    assert export(runs, asked, folder) == (WEIGHTS, RECEIPT, SUMS)
    assert sorted(path.name for path in folder.iterdir()) == sorted((WEIGHTS, RECEIPT, SUMS))
    assert (folder / WEIGHTS).read_bytes() == (runs.home.adapter(asked.adapter_id) / WEIGHTS).read_bytes()
    assert Receipt.from_bytes((folder / RECEIPT).read_bytes()).adapter_id == asked.adapter_id
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in folder.parent.iterdir()] == ["adapter"]
    if sums := shutil.which("sha256sum"):
        subprocess.run([sums, "--check", "--strict", SUMS], cwd=folder, check=True, capture_output=True)
        flip_a_byte(folder / WEIGHTS)
        assert subprocess.run([sums, "--check", SUMS], cwd=folder, check=False, capture_output=True).returncode == 1


def test_what_is_not_as_recorded_is_not_exported(runs: Finished, tmp_path: Path) -> None:
    asked, _, _ = runs.step()
    flip_a_byte(runs.home.adapter(asked.adapter_id) / WEIGHTS)
    with pytest.raises(RegistryError, match=rf"nothing is exported: .*{WEIGHTS} was changed"):
        export(runs, asked, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_runs_when_it_is_loaded_is_not_exported(runs: Finished, tmp_path: Path) -> None:
    runs.close_window()
    asked = runs.request()
    result = runs.finish(asked, new=-0.2)
    folder = runs.home.adapter(asked.adapter_id)
    write_atomic(folder / "adapter_model.bin", b"a pickle")
    runs.decide(asked, result.model_copy(update={"adapter_sha256": sha256_folder(folder)}))
    with pytest.raises(RegistryError, match=r"adapter_model\.bin in adapters/.* is no safetensors"):
        export(runs, asked, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_exists_is_left_alone(runs: Finished, tmp_path: Path) -> None:
    asked, _, _ = runs.step()
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="out exists already"):
        export(runs, asked, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_command_says_what_it_wrote_and_which_base_it_needs(runs: Finished, tmp_path: Path) -> None:
    asked, _, _ = runs.step()
    runs.store.close()
    arguments = ["--home", str(runs.home.root), "registry", "export", asked.adapter_id, str(tmp_path / "out")]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.stdout == f"{tmp_path / 'out'}: {WEIGHTS}, {RECEIPT}, {SUMS}. It stands on base base.\n"
