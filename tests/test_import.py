"""Importing an archive: once whatever happens, in order, split-pure, and nothing lost or half-written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.home import Home
from pipeline.store import Store
from pipeline.versions import VERSIONS
from streams.cli.commands import carry_out
from streams.demo.mailbox import write_mailbox
from tests.support.dump import rows_of, shards_of
from tests.support.kills import run_killed
from tests.support.program import mailtide, make, run

MAILS = 1_200
SETTINGS = ("window.bootstrap=200", "window.count=40", "window.age=null", "chunk.max_tokens=512")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "demo.mbox"
    write_mailbox(path, seed=3, messages=MAILS)
    return path


def summary(home: Path, archive: Path) -> dict[str, Any]:
    done = run(home, "import", str(archive), "--clock", "header", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def undisturbed(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = make(tmp_path_factory.mktemp("undisturbed") / "home", *SETTINGS)
    told = summary(home, archive)
    assert told["new"] + told["duplicates"] == told["read"] > MAILS
    assert len(told["windows_closed"]) == 1 + (told["new"] - 200) // 40
    return Home(home)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_kills_leave_the_same_rows_and_shards(archive: Path, undisturbed: Home, tmp_path: Path, seed: int) -> None:
    # A fast machine may be done before the first kill falls; sooner ones are then tried on a new home.
    for attempt in range(6):
        home = make(tmp_path / f"home{attempt}", *SETTINGS)
        delay = (0.3 / 2**attempt, 1.6 / 2**attempt)
        command = mailtide(home, "import", str(archive), "--clock", "header")
        lives = run_killed(command, kills=5, seed=seed, delay=delay, limit=120)
        if lives.kills:
            break
    assert lives.kills > 0
    assert rows_of(Home(home)) == rows_of(undisturbed)
    assert shards_of(Home(home)) == shards_of(undisturbed)


def test_importing_again_changes_nothing(archive: Path, undisturbed: Home) -> None:
    before = rows_of(undisturbed)
    again = summary(undisturbed.root, archive)
    assert (again["read"], again["new"], again["windows_closed"]) == (0, 0, [])
    assert rows_of(undisturbed) == before


def test_the_same_mail_from_another_file_is_all_duplicates(archive: Path, tmp_path: Path) -> None:
    home = make(tmp_path / "home", *SETTINGS)
    first = summary(home, archive)
    before = rows_of(Home(home))
    copy = tmp_path / "copy.mbox"
    copy.write_bytes(archive.read_bytes())
    again = summary(home, copy)
    assert (again["read"], again["new"], again["duplicates"]) == (first["read"], 0, first["read"])
    after = rows_of(Home(home))
    del before["store.feed_rows"], after["store.feed_rows"]
    assert after == before


def test_another_seed_gives_other_splits(archive: Path, undisturbed: Home, tmp_path: Path) -> None:
    home = make(tmp_path / "home", *SETTINGS, "seed=1")
    summary(home, archive)
    one, other = ({row[1]: row[2] for row in rows_of(at)["store.thread_rows"]} for at in (undisturbed, Home(home)))
    # What is quarantined depends on the splits, so a few threads exist in one home only.
    both = one.keys() & other.keys()
    assert len(both) > 0.9 * len(one)
    assert sum(one[thread] != other[thread] for thread in both) > 0.1 * len(both)


def test_files_are_private(undisturbed: Home) -> None:
    modes = {path: path.stat().st_mode & 0o777 for path in undisturbed.root.rglob("*")}
    assert len(modes) > 50
    assert {path.name for path, mode in modes.items() if mode != (0o700 if path.is_dir() else 0o600)} == set()


def test_an_archive_whose_name_is_no_utf8_is_imported_under_a_name_that_is(tmp_path: Path) -> None:
    """Names of files are bytes; older systems wrote Latin-1."""
    for kind in ("mbox", "maildir"):
        archive = tmp_path / os.fsdecode(f"Entwürfe.{kind}".encode("latin-1"))
        try:
            if kind == "mbox":
                write_mailbox(archive, seed=3, messages=5)
            else:
                for folder in ("new", "cur", "tmp"):
                    (archive / folder).mkdir(parents=True)
                (archive / "new" / os.fsdecode(b"1.\xe4")).write_bytes(b"From: ada@mail.example\n\nText.\n")
        except OSError:
            pytest.skip("this file system takes no such name")
        home = Home(tmp_path / kind)
        assert carry_out(["--home", str(home.root), "init"]) == 0
        assert carry_out(["--home", str(home.root), "import", str(archive)]) == 0
        with Store.open(home, None, VERSIONS) as store:
            [(source,)] = store.query("SELECT source FROM feed_rows WHERE source LIKE '%Entw%'")
        assert source.endswith(f"Entw\\xfcrfe.{kind}")


def test_a_home_whose_name_is_no_utf8_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / os.fsdecode(b"h\xe4me")
    assert carry_out(["--home", str(home), "init"]) == 2
    assert "is not text in UTF-8; name another with --home" in capsys.readouterr().err
    assert not home.exists()
