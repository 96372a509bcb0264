"""What ``mailtide doctor`` sees on real machines: real homes, real files, real programs on the path."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.arrival.people import PeopleKey
from pipeline.config.settings import Settings
from pipeline.home import Home
from streams.homes import make_home
from streams.inspecting.doctor import Check, diagnose
from streams.inspecting.requirements import declared, within


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    make_home(home, Settings(), PeopleKey(b"k" * 32))
    return home


def check(home: Home | None, name: str) -> Check:
    return next(one for one in diagnose(home) if one.name == name)


@pytest.mark.parametrize(
    ("version", "limits", "fits"),
    [
        ("5.17.0", "<5.23,>=5.0", True),
        ("5.23", "<5.23,>=5.0", False),
        ("5.23.0", "<5.23", False),
        ("4.9", ">=5.0", False),
        ("2.13.0+cpu", ">=2.9", True),
        ("2.10", ">=2.9", True),
        ("1.1rc1", ">=1.0", True),
        ("1.0.1", "!=1.0.1", False),
        ("0.1", "", True),
    ],
)
def test_versions_are_compared_by_number(version: str, limits: str, fits: bool) -> None:
    assert within(version, limits) is fits


def test_a_sound_home_has_nothing_missing(home: Home) -> None:
    checks = {one.name: one for one in diagnose(home)}
    assert [one.ok for name, one in checks.items() if name in ("Python", "packages", "home", "privacy", "store")] == [
        True
    ] * 5
    assert all(one.fix == "" for one in checks.values() if one.ok)
    assert all(one.fix for one in checks.values() if one.ok is False)


def test_without_a_home_it_says_how_to_make_one(tmp_path: Path) -> None:
    found = check(Home(tmp_path / "none"), "home")
    assert (found.ok, found.fix) == (None, "mailtide init")
    assert not (tmp_path / "none").exists()
    assert {one.name for one in diagnose(None)}.isdisjoint({"home", "disk", "store"})


def test_the_fix_for_files_open_to_others_works(home: Home) -> None:
    home.config.chmod(0o644)
    found = check(home, "privacy")
    assert found.ok is False
    assert str(home.config) in found.detail
    subprocess.run(["sh", "-c", found.fix], check=True)
    assert check(home, "privacy").ok


def test_a_held_store_is_told_with_its_holder(home: Home) -> None:
    script = (
        "import sys; from pathlib import Path; from pipeline.home import Home; from pipeline.store import Store\n"
        "with Store.open(Home(Path(sys.argv[1])), None, None): print('open', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(home.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        found = check(home, "store")
        assert found.ok is None
        assert str(holder.pid) in found.detail
    finally:
        holder.communicate()
    assert check(home, "store").ok


def test_a_damaged_store_is_told(home: Home) -> None:
    home.store.write_bytes(b"no database" * 1000)
    found = check(home, "store")
    assert found.ok is False
    assert found.fix


def test_settings_that_disagree_with_the_store_are_told_with_both_values(home: Home) -> None:
    home.config.write_text("seed: 5\n")
    found = check(home, "store")
    assert found.ok is False
    assert "5" in found.detail and "0" in found.detail


def test_missing_and_unfit_packages_come_with_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = tmp_path / "mailtide-0.1.0.dist-info"
    record.mkdir()
    lines = [
        "Metadata-Version: 2.4",
        "Name: mailtide",
        "Version: 0.1.0",
        "Requires-Dist: click<2",
        'Requires-Dist: no-such-package>=1.5; extra == "train"',
        'Requires-Dist: click>=1; extra == "train"',
        'Requires-Dist: absent-server>=2; extra == "serve"',
        'Requires-Dist: click<2; extra == "search"',
        'Requires-Dist: another-absent-package; extra == "dev"',
    ]
    (record / "METADATA").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    base, train = check(None, "packages"), check(None, "packages to train and to generate answers")
    assert base.ok is False and "click is 8" in base.detail and "<2" in base.detail
    assert train.ok is False and train.detail == "no-such-package is missing (needs >=1.5)"
    assert train.fix.endswith("-m pip install 'mailtide[train]'")
    serve, search = check(None, "packages to serve"), check(None, "packages to search by vectors")
    assert serve.ok is None and serve.detail == "absent-server is missing (needs >=2)"
    assert serve.fix.endswith("-m pip install 'mailtide[serve]'")
    assert search.ok is False and "click is 8" in search.detail


def test_every_declared_package_is_understood() -> None:
    requirements = declared()
    assert requirements is not None
    names = {requirement.name: requirement for requirement in requirements}
    assert names["torch"].extra == "train"
    assert names["duckdb"].extra == "" and names["duckdb"].fits
    assert len(requirements) > 15


def test_a_gpu_is_named_by_the_driver_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'Imaginary 9000, 81559 MiB'\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = check(None, "GPU")
    assert "Imaginary 9000, 81559 MiB" in found.detail
    program.write_text("#!/bin/sh\nexit 9\n")
    assert check(None, "GPU").ok is False
    program.unlink()
    assert check(None, "GPU").ok is not True


def test_it_imports_nothing_heavy(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from pipeline.home import Home\n"
        "from streams.inspecting.doctor import diagnose\n"
        "diagnose(Home(Path(sys.argv[1])))\n"
        "assert not {'torch', 'transformers', 'peft', 'duckdb', 'pyarrow'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "none")], check=True, timeout=60)
