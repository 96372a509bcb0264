"""Clumsy and hostile use: one line that names the thing and the next step, the right exit code, and a store as before."""

from __future__ import annotations

import gzip
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import pytest

from pipeline.home import Home
from streams.cli.commands import cli
from streams.demo.mailbox import write_mailbox
from tests.support import disks
from tests.support.dump import rows_of, shards_of
from tests.support.program import complaint, execute, mailtide, make, run, without_training

SETTINGS = ("window.bootstrap=60", "window.count=40", "window.age=null", "chunk.max_tokens=256")
TINY = (
    "model.builtin.vocabulary=512",
    "model.builtin.width=64",
    "model.builtin.layers=2",
    "model.builtin.heads=2",
    "model.builtin.context=256",
    "model.builtin.base_tokens=8000",
    "train.epochs=1",
    "train.threads=1",
    "eval.max_replies=0",
    "eval.generate=0",
)
Rows = dict[str, list[tuple[Any, ...]]]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "demo.mbox"
    write_mailbox(path, seed=3, messages=150)
    return path


@pytest.fixture(scope="module")
def kept(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with closed windows that no test changes."""
    home = make(tmp_path_factory.mktemp("kept") / "home", *SETTINGS, *TINY)
    done = run(home, "import", str(archive), "--clock", "header")
    assert done.returncode == 0, done.stderr
    return Home(home)


@pytest.fixture(scope="module")
def before(kept: Home) -> Rows:
    return rows_of(kept)


@pytest.fixture
def copy(kept: Home, tmp_path: Path) -> Home:
    """The same home, for a test that damages it."""
    shutil.copytree(kept.root, tmp_path / "home")
    return Home(tmp_path / "home")


REFUSED = {
    "unknown command": (("frobnicate",), 2, "'frobnicate'"),
    "mistyped command": (("registry", "lst"), 2, "(did you mean list?)"),
    "mistyped setting": (("plan", "--set", "widnow.age=3"), 2, "widnow is not a setting (did you mean window?)"),
    "no argument": (("import",), 2, "PATHS"),
    "unknown option": (("status", "--loud"), 2, "--loud"),
    "path missing": (("import", "/no/such/file"), 2, "/no/such/file"),
    "folder": (("import", "{folder}"), 2, "is a folder"),
    "no mbox": (("import", "{folder}/letter"), 2, "letter is not an mbox"),
    "good and bad": (("import", "{archive}", "{folder}/letter"), 2, "letter is not an mbox"),
    "device": (("import", "/dev/null"), 2, "/dev/null is not a regular file"),
    "empty": (("import", "{folder}/empty"), 3, "no mail in {folder}/empty"),
    "mailbox name": (("import", "{archive}", "--mailbox", "../up"), 2, "'../up' is no mailbox name"),
    "other clock": (("import", "{archive}", "--clock", "arrival"), 2, "cannot change to arrival"),
    "init twice": (("init",), 2, "is a mailtide home already"),
    "close unknown": (("close", "nobody"), 2, "no mailbox 'nobody'"),
    "plan unknown": (("plan", "nobody"), 2, "no mailbox 'nobody'"),
    "windows backwards": (("plan", "--windows", "5-3"), 2, "'5-3' runs backwards"),
    "windows not waiting": (("plan", "--windows", "77"), 3, "none of the windows asked for waits, only 0-"),
    "set nonsense": (("plan", "--set", "nonsense"), 2, "'nonsense' is not KEY=VALUE"),
    "another seed": (("plan", "--set", "seed=4"), 2, "seed is 4 in the settings, but frozen as 0"),
    "replies of nobody": (("plan", "--set", "model.objective=reply"), 2, "mailboxes.main.owner names no address"),
    "run unknown": (("runs", "show", "r0"), 2, "there is no run r0"),
    "adapter unknown": (("registry", "show", "a0"), 2, "there is no adapter a0"),
    "promote unknown": (("registry", "promote", "a0", "--reason", "x"), 2, "there is no adapter a0"),
    "lineage unknown": (("registry", "lineage", "a0"), 2, "there is no adapter a0"),
    "verify unknown": (("registry", "verify", "r0"), 2, "there is no adapter or run r0"),
    "rollback to nothing": (("registry", "rollback", "--reason", "x"), 1, "had no champion to return to"),
    "no time": (("registry", "at", "teatime"), 2, "'teatime' is no ISO 8601 time"),
    "empty question": (("ask", "  "), 2, "the question is empty"),
    "ask with unknown": (("ask", "harbour", "--adapter", "a0"), 2, "no adapter a0"),
    "no base yet": (("ask", "the", "--generate"), 3, "built-in base is made by the first run"),
    "view unknown": (("export", "secrets"), 2, "'secrets'"),
    "export unwritable": (("export", "windows", "--output", "{folder}/letter/x.csv"), 1, "letter/x.csv cannot be written"),
    "export to folder": (("export", "windows", "--output", "{folder}"), 2, "is a directory"),
    "parse missing": (("parse", "/no/such/file"), 2, "/no/such/file"),
    "parse folder": (("parse", "{folder}"), 2, "{folder}"),
    "sql empty": (("sql", ""), 2, "0 statements"),
    "sql column": (("sql", "SELECT windo_idx FROM messages"), 2, 'sql "DESCRIBE messages"`'),
    "sql nonsense": (("sql", "selec 1"), 2, "syntax error"),
    "sql two": (("sql", "SELECT 1; DROP TABLE chunk_rows"), 2, "2 statements"),
    "sql writes": (("sql", "DROP TABLE chunk_rows"), 2, "type DROP is refused"),
    "sql writes inside": (("sql", "WITH d AS (DELETE FROM chunk_rows RETURNING *) FROM d"), 2, "read-only"),
    "sql reads a file": (("sql", "SELECT * FROM read_text('/etc/passwd')"), 2, "/etc/passwd"),
    "sql writes a file": (("sql", "COPY messages TO '{folder}/out.csv'"), 2, "type COPY is refused"),
}


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.replace(" ", "-"))
def test_refused_with_one_line_and_nothing_changed(
    case: str, kept: Home, before: Rows, archive: Path, tmp_path: Path
) -> None:
    (tmp_path / "letter").write_text("Dear all,\n\nthis is no mbox.\n")
    (tmp_path / "empty").touch()
    arguments, code, names = REFUSED[case]
    filled = [argument.replace("{folder}", str(tmp_path)).replace("{archive}", str(archive)) for argument in arguments]
    done = run(kept.root, *filled)
    assert names.replace("{folder}", str(tmp_path)) in complaint(done)
    assert (done.returncode, done.stdout) == (code, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "letter"]
    assert rows_of(kept) == before


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file here that opens and cannot be read")
def test_a_file_that_cannot_be_read(kept: Home, before: Rows) -> None:
    done = run(kept.root, "import", "/proc/self/mem")
    assert (done.returncode, "cannot be read at byte 0" in complaint(done)) == (1, True)
    assert rows_of(kept) == before


def test_before_any_mail(tmp_path: Path) -> None:
    home = make(tmp_path / "home")
    empty = rows_of(Home(home))
    (tmp_path / "empty").touch()
    for arguments in (("ask", "when?"), ("plan",), ("retrain", "--confirm"), ("import", str(tmp_path / "empty"))):
        done = run(home, *arguments)
        assert done.returncode == 3, arguments
        complaint(done)
    assert rows_of(Home(home)) == empty


def test_no_home_and_a_home_that_is_a_file(tmp_path: Path) -> None:
    nothing = run(tmp_path / "none", "status")
    assert (nothing.returncode, f"make one with `mailtide --home {tmp_path / 'none'} init`" in complaint(nothing)) == (
        2,
        True,
    )
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").write_text("kept")
    for command in ("status", "init"):
        done = run(tmp_path / "file", command)
        assert (done.returncode, f"'{tmp_path / 'file'}' is a file" in complaint(done)) == (2, True)
    assert (tmp_path / "file").read_text() == "kept"


def test_three_mistakes_are_told_at_once_and_no_home_is_made(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("seed: x\nwindow: {count: -1}\ncolour: blue\n")
    done = run(tmp_path / "home", "init", "--config", str(config))
    said = complaint(done)
    assert done.returncode == 2
    assert "3 problems" in said
    assert all(name in said for name in ("seed:", "window.count:", "colour is not a setting"))
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(("text", "says"), [("abcd", "4 hexadecimal digits"), ("zz", "not hexadecimal"), (None, "No such")])
def test_a_people_key_that_is_none(text: str | None, says: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    if text is not None:
        key.write_text(text)
    done = run(tmp_path / "home", "init", "--people-key", str(key))
    assert (done.returncode, says in complaint(done)) == (2, True)
    assert not (tmp_path / "home").exists()


def test_an_archive_named_twice_counts_once(archive: Path, kept: Home, tmp_path: Path) -> None:
    home = make(tmp_path / "home", *SETTINGS, *TINY)
    link = tmp_path / "link.mbox"
    link.symlink_to(archive)
    done = run(home, "import", str(archive), str(archive), str(link), "--clock", "header")
    assert done.returncode == 0, done.stderr
    assert rows_of(Home(home)) == rows_of(kept)


def test_an_open_window_without_mail_cannot_close(copy: Home) -> None:
    assert run(copy.root, "close", "main").returncode == 0
    closed = rows_of(copy)
    done = run(copy.root, "close", "main")
    assert (done.returncode, "holds no mail" in complaint(done)) == (3, True)
    assert rows_of(copy) == closed


def test_a_truncated_archive_gives_every_whole_mail_and_goes_on_when_whole(
    archive: Path, kept: Home, tmp_path: Path
) -> None:
    home = make(tmp_path / "home", *SETTINGS, *TINY)
    packed = gzip.compress(archive.read_bytes())
    path = tmp_path / "demo.mbox"
    path.write_bytes(packed[: len(packed) // 2])
    done = run(home, "import", str(path), "--clock", "header")
    assert (done.returncode, f"{path} is damaged at byte" in complaint(done)) == (1, True)
    taken = rows_of(Home(home))["store.message_rows"]
    assert 20 < len(taken) < 150
    path.write_bytes(packed)
    assert run(home, "import", str(path)).returncode == 0
    whole, wanted = rows_of(Home(home)), rows_of(kept)
    assert whole["store.chunk_rows"] == wanted["store.chunk_rows"]
    assert shards_of(Home(home)) == shards_of(kept)


@pytest.mark.parametrize("change", ["shrunk", "emptied", "replaced"])
def test_a_file_that_is_not_what_it_was(change: str, archive: Path, tmp_path: Path) -> None:
    home = make(tmp_path / "home", *SETTINGS)
    path = tmp_path / "inbox"
    data = archive.read_bytes()
    path.write_bytes(data[: data.index(b"\nFrom ", 30_000) + 1])
    assert run(home, "import", str(path)).returncode == 0
    taken = rows_of(Home(home))
    path.write_bytes(
        {"shrunk": data[:9_000], "emptied": b"", "replaced": data[data.index(b"\nFrom ", 30_000) + 1 :]}[change]
    )
    done = run(home, "import", str(path))
    assert (done.returncode, f"{path} was replaced or rewritten" in complaint(done)) == (1, True)
    assert rows_of(Home(home)) == taken


@pytest.fixture
def holder(copy: Home) -> Iterator[subprocess.Popen[str]]:
    """A process that has the copy's store open."""
    program = f"import duckdb; c = duckdb.connect({str(copy.store)!r})\nprint('up', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process
        process.kill()


def test_a_store_held_by_another_process(copy: Home, before: Rows, archive: Path, holder: subprocess.Popen[str]) -> None:
    for arguments in (("status",), ("import", str(archive))):
        done = run(copy.root, *arguments)
        said = complaint(done)
        assert done.returncode == 1
        assert f"{copy.store} is held by process {holder.pid}" in said
        assert f"`kill {holder.pid}`" in said
    holder.kill()
    holder.wait()
    assert rows_of(copy) == before


def test_a_store_made_by_a_newer_version(copy: Home) -> None:
    import duckdb

    with duckdb.connect(str(copy.store)) as connection:
        connection.execute("INSERT INTO migrations VALUES (999, '0999_later.sql', ?)", [datetime(2030, 1, 1)])
    bytes_before = copy.store.read_bytes()
    for command in ("status", "plan"):
        done = run(copy.root, command)
        assert (done.returncode, "has schema 999" in complaint(done), "upgrade mailtide" in done.stderr) == (1, True, True)
    assert copy.store.read_bytes() == bytes_before


def remove(path: Path) -> None:
    path.unlink()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [remove, flip])
def test_a_missing_or_corrupt_shard_is_named(damage: Callable[[Path], None], copy: Home, before: Rows) -> None:
    shard = copy.shard("main", 0) / "chunks.parquet"
    whole = shard.read_bytes()
    damage(shard)
    for command in ("plan", "retrain"):
        done = run(copy.root, command)
        assert (done.returncode, str(shard) in complaint(done), "backup" in done.stderr) == (1, True, True)
    assert rows_of(copy) == before
    shard.write_bytes(whole)
    assert run(copy.root, "plan").returncode == 0


def test_without_the_training_extra(kept: Home, before: Rows, tmp_path: Path) -> None:
    done = execute(without_training(tmp_path / "light", kept.root, "retrain", "--confirm"))
    assert "training needs torch, transformers, peft, bitsandbytes, accelerate; install" in complaint(done)
    assert done.returncode == 1
    assert rows_of(kept) == before
    for command in (("plan",), ("status",), ("ask", "the")):
        done = execute(without_training(tmp_path / command[0], kept.root, *command))
        assert (done.returncode, done.stderr) == (0, "")


def test_an_interrupted_import_says_so_and_goes_on(tmp_path: Path) -> None:
    archive = tmp_path / "long.mbox"
    write_mailbox(archive, seed=4, messages=1_000)  # seconds of work, so that the interrupt finds it at work
    homes = [make(tmp_path / name, *SETTINGS, *TINY) for name in ("interrupted", "undisturbed")]
    home = homes[0]
    process = subprocess.Popen(
        mailtide(home, "import", str(archive), "--clock", "header"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    until_import = threading.Event()
    for _ in range(3_000):  # interrupted when its feed's journal appears: in the midst of taking mail
        if any((home / "feeds").glob("*.sqlite")) or process.poll() is not None:
            break
        until_import.wait(0.005)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.split("\n")[-2:] == ["mailtide: interrupted; the same command continues where it stopped", ""]
    assert "Traceback" not in said
    for each in homes:
        assert run(each, "import", str(archive), "--clock", "header").returncode == 0
    assert rows_of(Home(home)) == rows_of(Home(homes[1]))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disks.small_disk(tmp_path / "disk", megabytes=64) as place:
        yield place


def test_a_full_disk_loses_nothing(archive: Path, kept: Home, small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    home = make(small_disk / "home", *SETTINGS, *TINY)
    failures = 0
    while True:
        # Room for the home alone, then a little more each time: the disk fills at many different points.
        free = shutil.disk_usage(small_disk).free
        room = (failures + 1) * 250_000
        with ballast.open("wb") as file:
            file.write(bytes(max(0, free - room)))
        done = run(home, "import", str(archive), "--clock", "header")
        ballast.unlink()
        if done.returncode == 0:
            break
        failures += 1
        assert done.returncode == 1
        assert "run the same command again" in complaint(done) or "check disk and permissions" in done.stderr
        assert failures < 30
    assert failures >= 2
    assert rows_of(Home(home)) == rows_of(kept)
    assert shards_of(Home(home)) == shards_of(kept)
    assert not list(home.rglob("*.tmp"))


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


def test_every_command_and_option_explains_itself(tmp_path: Path) -> None:
    found = list(commands(cli))
    assert len(found) >= 25
    for path, command in found:
        context = click.Context(command, info_name=path[-1])
        assert command.get_help(context)
        short = command.get_short_help_str(limit=61)
        assert 10 < len(short) <= 60, path
        assert not short.endswith("..."), path
        silent = [
            option.name for option in command.params if isinstance(option, click.Option) and not (option.help or "").strip()
        ]
        assert (path, silent) == (path, [])
    done = run(tmp_path, "registry", "lineage", "--help")
    assert (done.returncode, done.stderr, "--message" in done.stdout) == (0, "", True)


def test_status_tells_what_waits_for_training(kept: Home) -> None:
    (standing,) = json.loads(run(kept.root, "status", "--json").stdout)["mailboxes"]
    assert standing["waiting"] == standing["windows_closed"] > 1
    waiting = "1 window waits" if standing["waiting"] == 1 else f"{standing['waiting']} windows wait"
    assert f"{waiting}: mailtide --home {kept.root} plan" in run(kept.root, "status").stdout


@pytest.mark.slow
@pytest.mark.timeout(900)  # four training processes, each of which imports torch: minutes on a busy machine
def test_a_damaged_input_decides_nothing_and_the_same_run_goes_on(copy: Home) -> None:
    text = copy.shard("main", 1) / "text.parquet"
    first = damaged_then_whole(copy, text, "--windows", "0-1")
    assert (first["windows"], first["steps"] > 0) == ([0, 1], True)
    again = run(copy.root, "retrain", "--confirm", "--windows", "0-1", timeout=300)
    assert again.returncode == 3
    complaint(again)
    if first["outcome"] != "promoted":
        assert run(copy.root, "registry", "promote", first["adapter_id"], "--reason", "as parent").returncode == 0
    second = damaged_then_whole(copy, copy.adapter(first["adapter_id"]) / "adapter_model.safetensors")
    assert (second["windows"], second["parent"]) == ([2], first["adapter_id"])


def damaged_then_whole(home: Home, file: Path, *arguments: str) -> dict[str, Any]:
    """Retrains while a file that the run reads is damaged, then with the file as it was: the report of that."""
    whole = file.read_bytes()
    flip(file)
    refused = run(home.root, "retrain", "--confirm", *arguments, timeout=300)
    assert (refused.returncode, str(file.parent) in complaint(refused), "backup" in refused.stderr) == (1, True, True)
    (asked,) = json.loads(run(home.root, "runs", "--json").stdout)[-1:]
    assert asked["status"] == "requested"
    file.write_bytes(whole)
    done = run(home.root, "retrain", "--confirm", "--json", timeout=300)
    assert done.returncode in (0, 3), done.stderr
    (report,) = json.loads(done.stdout)
    assert report["run_id"] == asked["run_id"]
    found: dict[str, Any] = report
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_without_val_chunks_there_is_no_verdict(archive: Path, tmp_path: Path) -> None:
    home = make(tmp_path / "home", *SETTINGS, *TINY, "split.train=0.9", "split.val=0", "split.test=0.1")
    assert run(home, "import", str(archive), "--clock", "header").returncode == 0
    done = run(home, "retrain", "--confirm", "--json", timeout=300)
    assert done.returncode == 3, done.stderr
    (report,) = json.loads(done.stdout)
    assert (report["outcome"], report["new_before"]) == ("abstained", None)
    assert "val" in " ".join(report["reasons"])
    again = run(home, "retrain", "--confirm")
    assert (again.returncode, "was abstained on just this evidence" in complaint(again)) == (3, True)


def test_an_interrupt_before_anything_is_loaded_is_one_line(tmp_path: Path) -> None:
    """Ctrl-C while the command line's own libraries are being imported."""
    program = """
import os, signal, sys
from importlib.abc import MetaPathFinder
from streams.cli import main

class Interrupting(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)

sys.modules.pop("click", None)
sys.meta_path.insert(0, Interrupting())
main(["--home", sys.argv[1], "status"])
"""
    done = execute([sys.executable, "-c", program, str(tmp_path / "home")])
    assert done.returncode == 130
    assert complaint(done) == "mailtide: interrupted; the same command continues where it stopped"
