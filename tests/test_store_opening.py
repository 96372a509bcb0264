"""A store is made once, opened by one process at a time, and only with settings that agree with what froze in it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from pipeline.config.settings import ChunkSettings, MailboxSettings, Settings, SplitSettings
from pipeline.domain import Clock
from pipeline.errors import ConfigError, StoreError, StoreHeldError, UsageError
from pipeline.home import Home
from pipeline.store import Store, Versions
from pipeline.store.rows import MailboxRow
from tests.conftest import REPOSITORY
from tests.support.appender import appender
from tests.support.rows import KEY, START, VERSIONS, message, new_store


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "it's a home")


def test_every_frozen_value_that_differs_is_named(home: Home, tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text("{}")
    made = Settings(chunk=ChunkSettings(ruler=str(tokenizer)), mailboxes={"work": MailboxSettings(clock=Clock.HEADER)})
    with new_store(home.root, made) as store:
        store.append([MailboxRow("work", "header", START)])
    copy = tmp_path / "copy.json"
    copy.write_text("{}")
    moved = made.model_copy(update={"chunk": ChunkSettings(ruler=str(copy))})
    Store.open(home, moved, VERSIONS).close()

    tokenizer.write_text("{ }")
    other = Settings(
        seed=7,
        split=SplitSettings(train=0.6, val=0.2, test=0.2),
        chunk=ChunkSettings(size=5, overlap=1, max_tokens=999, ruler=str(tokenizer)),
        mailboxes={"work": MailboxSettings(clock=Clock.ARRIVAL), "new": MailboxSettings(clock=Clock.ARRIVAL)},
    )
    with pytest.raises(ConfigError) as refused:
        Store.open(home, other, Versions(parse=2, scrub=3, chunk=4))
    problems = refused.value.problems
    named = ["seed", "split.train", "split.val", "split.test", "chunk.size", "chunk.overlap", "chunk.max_tokens"]
    named += ["chunk.ruler", "parse version", "scrub version", "chunk version", "mailboxes.work.clock"]
    assert [problem.partition(" is ")[0] for problem in problems] == named
    assert "seed is 7 in the settings, but frozen as 0 in the store" in problems
    assert "scrub version is 3 in this mailtide, but 1 in the store" in problems
    assert "mailboxes.work.clock is arrival in the settings, but frozen as header in the store" in problems
    Store.open(home, None, None).close()


def test_a_clock_that_the_settings_leave_open_is_no_disagreement(home: Home) -> None:
    with new_store(home.root) as store:
        store.append([MailboxRow("work", "header", START)])
    Store.open(home, Settings(mailboxes={"work": MailboxSettings(owner=("me@example.org",))}), VERSIONS).close()


def test_a_ruler_that_cannot_be_read_is_named(home: Home) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.json cannot be read"):
        new_store(home.root, Settings(chunk=ChunkSettings(ruler="nowhere.json")))
    assert not home.root.exists()


def test_a_home_is_made_once_and_private(home: Home) -> None:
    with new_store(home.root) as store:
        store.append(message(0))
        assert home.store.with_name("store.duckdb.wal").exists()
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in home.root.iterdir()}
        assert set(modes.values()) == {0o600}
        assert stat.S_IMODE(home.root.stat().st_mode) == 0o700
        assert store.schema_version >= 1
        assert store.people == KEY
    with pytest.raises(UsageError, match="holds a store already"):
        new_store(home.root)


def test_no_home_names_the_command_that_makes_one(home: Home) -> None:
    with pytest.raises(UsageError, match="mailtide init"):
        Store.open(home, None, None)
    assert not home.root.exists()


def test_a_home_that_was_never_finished_can_be_made_again(home: Home) -> None:
    (home.root / ".creating").mkdir(parents=True)
    (home.root / ".creating" / "store.duckdb").write_bytes(b"half")
    home.bodies.write_bytes(b"left by a crash between the two files")
    new_store(home.root).close()
    assert not (home.root / ".creating").exists()


def test_a_newer_store_asks_for_a_newer_mailtide(home: Home) -> None:
    new_store(home.root).close()
    with duckdb.connect(str(home.store)) as connection:
        connection.execute("INSERT INTO migrations VALUES (99, '0099_later.sql', now()::TIMESTAMP)")
    with pytest.raises(StoreError, match=r"has schema 99.*upgrade mailtide"):
        Store.open(home, None, None)


@pytest.mark.parametrize("name", ["store", "bodies"])
@pytest.mark.parametrize("damage", [b"", b"not a database", b"\0" * 100_000])
def test_a_damaged_file_is_named(home: Home, name: str, damage: bytes) -> None:
    new_store(home.root).close()
    file = home.root / f"{name}.duckdb"
    file.write_bytes(damage)
    with pytest.raises(StoreError, match=f"{name}.duckdb") as refused:
        Store.open(home, None, None)
    assert not isinstance(refused.value, StoreHeldError)


def test_bodies_that_are_missing_are_not_made_anew(home: Home) -> None:
    new_store(home.root).close()
    home.bodies.unlink()
    with pytest.raises(StoreError, match=r"bodies\.duckdb is missing"):
        Store.open(home, None, None)
    assert not home.bodies.exists()


def test_one_process_opens_a_store_once(home: Home) -> None:
    store = new_store(home.root)
    with pytest.raises(StoreHeldError, match="this process already") as refused:
        Store.open(home, None, None)
    assert refused.value.pid == os.getpid()
    store.append(message(0))
    store.close()


def test_a_store_held_elsewhere_names_the_process(home: Home) -> None:
    new_store(home.root).close()
    with appender(home, "hold") as holder:
        assert holder.stdout is not None and holder.stdin is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StoreHeldError, match=r"tests\.support\.appender.*kill") as refused:
            Store.open(home, None, None)
        assert refused.value.pid == holder.pid
        holder.stdin.close()
        assert holder.wait(60) == 0
    Store.open(home, None, None).close()


def test_the_help_loads_nothing_heavy() -> None:
    heavy = {"duckdb", "pyarrow", "pydantic", "torch", "transformers", "yaml"}
    script = (
        "import sys; from streams.cli import main\n"
        "sys.argv = ['mailtide', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"assert not {heavy!r} & set(sys.modules), sorted({heavy!r} & set(sys.modules))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=REPOSITORY, timeout=60, capture_output=True)


def test_neither_importing_nor_reading_loads_what_it_does_not_need(home: Home) -> None:
    new_store(home.root).close()
    script = (
        "import sys, pathlib; from pipeline.store import Store; from pipeline.home import Home;"
        "assert 'duckdb' not in sys.modules;"
        f"Store.open(Home(pathlib.Path({str(home.root)!r})), None, None).query('SELECT * FROM windows');"
        "assert 'duckdb' in sys.modules and 'pyarrow' not in sys.modules and 'pydantic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=REPOSITORY, timeout=60)
