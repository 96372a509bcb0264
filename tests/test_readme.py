"""What the documentation says is run, or compared with the code: a sentence that stopped being true fails here."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pipeline.arrival.people import PeopleKey
from pipeline.config.configuration import rows
from pipeline.config.settings import MailboxSettings, Settings
from pipeline.home import Home
from pipeline.store import Store
from pipeline.store.export import VIEWS
from pipeline.versions import VERSIONS
from streams.cli import SECTIONS
from streams.cli.commands import cli
from streams.demo.mailbox import write_mailbox
from streams.homes import make_home
from tests.conftest import REPOSITORY

README = REPOSITORY / "README.md"
ARCHITECTURE = REPOSITORY / "docs" / "architecture.md"

BLOCK = re.compile(r"<!-- (?P<mark>run|train|after training) -->\n```console\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
HOST = re.compile(r"\b[\w-]+(?:\.[\w-]+)*\.(?:org|io|com|co|net|dev|ai)\b", re.IGNORECASE)
HOSTS = {"keepachangelog.com"}
"""The only hosts that the documentation may name; above all it names no registry of packages."""
ABSOLUTE = re.compile(r"(?<![\w~.:/<*])/[a-z]+/\S*")
PLACEHOLDERS = ("/models/", "/proc/", "/api/")
"""The only absolute paths it may name, endpoints apart: whose machine a text was written on is nobody's business."""

TINY = {
    "MAILTIDE_MODEL__BUILTIN__BASE_TOKENS": "20000",
    "MAILTIDE_MODEL__BUILTIN__WIDTH": "64",
    "MAILTIDE_MODEL__BUILTIN__LAYERS": "2",
    "MAILTIDE_MODEL__BUILTIN__HEADS": "2",
    "MAILTIDE_MODEL__BUILTIN__VOCABULARY": "512",
    "MAILTIDE_MODEL__CONTEXT": "256",
    "MAILTIDE_TRAIN__EPOCHS": "1",
}


def markdown() -> list[Path]:
    found = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")]
    assert len(found) >= 6, found
    return found


def commands_of(mark: str) -> list[list[str]]:
    """The ``mailtide`` commands of the README's blocks with that mark, in order."""
    lines = [
        line.removeprefix("$ ")
        for block in BLOCK.finditer(README.read_text(encoding="utf-8"))
        if block["mark"] == mark
        for line in block["body"].splitlines()
        if line.startswith("$ mailtide ")
    ]
    assert lines, f"no command marked {mark!r}"
    return [shlex.split(line)[1:] for line in lines]


def run(arguments: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAILTIDE_")}
    return subprocess.run(
        [sys.executable, "-m", "streams.cli", *arguments],
        cwd=folder,
        env={**kept, "MAILTIDE_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def table(path: Path, marker: str) -> list[list[str]]:
    """The body rows of the table between ``<!-- marker -->`` and ``<!-- /marker -->``, cells stripped."""
    text = path.read_text(encoding="utf-8")
    _, _, rest = text.partition(f"<!-- {marker} -->\n")
    body, end, _ = rest.partition(f"<!-- /{marker} -->")
    assert end, f"{path.name} has no table between <!-- {marker} --> and <!-- /{marker} -->"
    lines = [line for line in body.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def commands(group: click.Group = cli, above: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command that does something by itself, with its full name."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        full = f"{above} {name}".strip()
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield full, command
        if isinstance(command, click.Group):
            yield from commands(command, full)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the archive that the README's commands import."""
    write_mailbox(tmp_path / "archive.mbox", seed=3, months=9, messages=700)
    return tmp_path


def test_the_commands_of_the_readme_run(folder: Path) -> None:
    for arguments in commands_of("run"):
        done = run(arguments, folder)
        assert done.returncode == 0, f"mailtide {shlex.join(arguments)}\n{done.stderr}"
        assert done.stdout.strip(), f"mailtide {shlex.join(arguments)} says nothing"


def test_every_list_can_be_shown_before_and_after_mail_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = [name.split() for name, _ in commands() if name.split()[-1] in ("list", "windows", "runs", "journal", "status")]
    assert len(lists) >= 7
    archive = tmp_path / "archive.mbox"
    write_mailbox(archive, seed=3, messages=60)
    monkeypatch.setenv("MAILTIDE_HOME", str(tmp_path / "home"))
    for step in (["init"], ["import", str(archive)]):
        assert CliRunner().invoke(cli, step).exit_code == 0
        for name in lists:
            for given in (name, [*name, "--json"]):
                done = CliRunner().invoke(cli, given, catch_exceptions=False)
                assert done.exit_code == 0, f"mailtide {shlex.join(given)}\n{done.stderr}"
                assert done.stdout.strip()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_readme_trains(folder: Path) -> None:
    for arguments in commands_of("run"):
        run(arguments, folder)
    for arguments in commands_of("train"):
        done = run(arguments, folder, **TINY)
        assert done.returncode in (0, 3), done.stderr
        assert "PROMOTED" in done.stdout or "REJECTED" in done.stdout or "ABSTAINED" in done.stdout
        assert done.stdout.splitlines()[-1].startswith("Next: mailtide "), "each step says what comes next"
    for arguments in commands_of("after training"):
        done = run(arguments, folder, **TINY)
        assert done.returncode == 0, f"mailtide {shlex.join(arguments)}\n{done.stderr}"


def test_every_setting_is_listed() -> None:
    listed = [(quoted(name)[0], quoted(value)[0], meaning) for name, value, meaning in table(README, "settings")]
    assert listed == rows()


def test_every_setting_of_a_mailbox_is_listed() -> None:
    listed = {quoted(name)[0]: meaning for name, _, meaning in table(README, "mailbox settings")}
    assert listed == {f"mailboxes.NAME.{name}": field.description for name, field in MailboxSettings.model_fields.items()}


def test_every_command_and_option_is_listed() -> None:
    options = {
        name: {parameter.opts[0] for parameter in command.params if isinstance(parameter, click.Option)}
        for name, command in commands()
    }
    listed = {
        " ".join(re.findall(r"\b[a-z]+(?:-[a-z]+)*\b", quoted(name)[0])): {
            option.split()[0] for option in quoted(given) if option.startswith("-")
        }
        for name, _, given in table(README, "commands")
    }
    assert len(options) > 20
    assert listed == options


def test_the_readme_groups_the_commands_as_the_help_does() -> None:
    rows = re.findall(r"^\| [^|]+ \| ((?:`[a-z]+`(?:, )?)+) \|$", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert [quoted(names) for names in rows] == [list(names) for names in SECTIONS.values()]


def test_the_views_are_those_of_the_store(tmp_path: Path) -> None:
    listed = {quoted(name)[0]: quoted(columns) for name, columns, *_ in table(ARCHITECTURE, "views")}
    home = Home(tmp_path / "home")
    make_home(home, Settings(), PeopleKey.draw())
    with Store.open(home, None, VERSIONS) as store:
        found = {view: [row[0] for row in store.query(f"DESCRIBE SELECT * FROM {view}")] for view in VIEWS}
    assert listed == found


def test_files_named_in_the_architecture_exist_and_none_is_left_out() -> None:
    named = set(re.findall(r"`((?:pipeline|retrain|registry|streams)/[\w/.]+\.py)`", ARCHITECTURE.read_text("utf-8")))
    packages = ("pipeline", "retrain", "registry", "streams")
    there = {
        path.relative_to(REPOSITORY).as_posix()
        for package in packages
        for path in (REPOSITORY / package).rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py") and "demo" not in path.parts
    }
    assert named - {path for path in named if "/demo/" in path or path.endswith("__init__.py")} == there


def test_tests_named_in_the_documentation_exist() -> None:
    named = set()
    for path in markdown():
        named |= set(re.findall(r"`(tests/[\w/.]+\.py)`", path.read_text("utf-8")))
    assert named
    assert [name for name in sorted(named) if not (REPOSITORY / name).is_file()] == []


@pytest.mark.parametrize("path", markdown(), ids=lambda path: path.name)
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    for link in LINK.finditer(path.read_text(encoding="utf-8")):
        target, _, anchor = link["target"].partition("#")
        if target.startswith("https://"):
            continue
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), f"{path.name}: {link['target']}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, f"{path.name}: {link['target']}"


@pytest.mark.parametrize("path", markdown(), ids=lambda path: path.name)
def test_no_machine_and_no_registry_is_named(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert {host.lower() for host in HOST.findall(text)} <= HOSTS
    assert [found for found in ABSOLUTE.findall(text) if not found.startswith(PLACEHOLDERS)] == []
