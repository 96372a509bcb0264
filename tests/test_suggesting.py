"""What the program suggests next can be typed as it stands, and names what was meant."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pipeline.config.configuration import load
from pipeline.errors import ConfigError
from streams.cli import SECTIONS
from streams.cli.commands import carry_out, cli
from streams.cli.suggesting import remember_home, repeatable
from streams.demo.mailbox import write_mailbox

HOME = Path("my mail")


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    remember_home(None)


@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        ("Next: mailtide plan", "Next: mailtide --home 'my mail' plan"),
        ("mailtide init", "mailtide --home 'my mail' init"),
        (
            "see `mailtide runs`, or `mailtide plan`",
            "see `mailtide --home 'my mail' runs`, or `mailtide --home 'my mail' plan`",
        ),
        ("see `mailtide plan --help`", "see `mailtide plan --help`"),
        ("Look around: mailtide --home other runs", "Look around: mailtide --home other runs"),
        ("there is no mailtide home here", "there is no mailtide home here"),
        ("until then mailtide retrain refuses", "until then mailtide retrain refuses"),
        ("mailtide home", "mailtide home"),
    ],
)
def test_a_suggested_command_names_the_home_that_was_given(sentence: str, told: str) -> None:
    remember_home(None)
    assert repeatable(sentence) == sentence
    remember_home(HOME)
    assert repeatable(sentence) == told


def test_a_program_that_its_name_would_not_find_is_suggested_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember_home(None)
    place = tmp_path / "my venv" / "mailtide"
    place.parent.mkdir()
    place.write_text("#!/bin/sh\n")
    place.chmod(0o755)
    monkeypatch.setattr("sys.argv", [str(place)])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert repeatable("Next: mailtide plan") == f"Next: '{place}' plan"
    remember_home(HOME)
    assert repeatable("see `mailtide runs`") == f"see `'{place}' --home 'my mail' runs`"
    monkeypatch.setenv("PATH", str(place.parent))
    assert repeatable("see `mailtide runs`") == "see `mailtide --home 'my mail' runs`"


def test_each_step_of_a_first_session_suggests_the_next_and_it_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mailbox(tmp_path / "archive.mbox", seed=3, messages=60)
    monkeypatch.chdir(tmp_path)

    def told(arguments: list[str]) -> list[str]:
        assert carry_out(arguments) == 0
        return shlex.split(capsys.readouterr().out.splitlines()[-1].split(": mailtide ", 1)[1])

    begin = [part for setting in ("window.bootstrap=20", "window.count=20") for part in ("--set", setting)]
    steps = told(["--home", str(HOME), "init", *begin])
    assert steps[2:] == ["import", "PATH"]
    steps = told([*steps[:-1], "archive.mbox", "--clock", "header"])
    assert steps[2:] == ["plan"]
    steps = told([*steps, "main", "--windows", "0", "--set", "train.epochs=1"])
    assert steps == ["--home", str(HOME), "retrain", "main", "--confirm", "--windows", "0", "--set", "train.epochs=1"]
    assert told([step for step in steps if step != "--confirm"]) == steps
    planned = ["--home", str(HOME), "plan", "main", "--windows", "0", "--set", "train.epochs=1"]
    assert told([*planned, "--set", "plan.gpu_gib=24"]) == steps, "to be typed on the machine that has it"


def test_windows_beyond_the_plan_are_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_mailbox(tmp_path / "archive.mbox", seed=3, messages=60)
    home = ["--home", str(tmp_path / "home")]
    settings = ("window.bootstrap=10", "window.count=10", "window.age=null", "replay.max_new_windows=2")
    assert carry_out([*home, "init", *(part for setting in settings for part in ("--set", setting))]) == 0
    assert carry_out([*home, "import", str(tmp_path / "archive.mbox"), "--clock", "header"]) == 0
    capsys.readouterr()
    assert carry_out([*home, "plan"]) == 0
    closed = int(capsys.readouterr().out.splitlines()[0].rsplit("-", 1)[1]) + 1
    assert carry_out([*home, "plan"]) == 0
    assert f"{closed - 2} more windows wait for later runs: a run takes 2" in capsys.readouterr().out
    assert carry_out([*home, "plan", "--windows", "0"]) == 0
    assert "for later runs" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("windw.age=3", "window"),
        ("epochs=3", "train.epochs"),
        ("train.epoch=3", "train.epochs"),
        ("gate.limit.rag=2", "gate.limits"),
        ("mailboxes.main.ownr=x", "mailboxes.main.owner"),
        ("train.zzz=1", None),
        ("colour=blue", None),
    ],
)
def test_a_mistyped_setting_is_answered_with_the_one_that_was_meant(given: str, meant: str | None) -> None:
    with pytest.raises(ConfigError) as told:
        load(None, environment={}, overrides=[given])
    assert (f"(did you mean {meant}?)" in str(told.value)) == (meant is not None)
    assert ("did you mean" in str(told.value)) == (meant is not None)


def test_the_help_lists_every_command_in_one_section_and_nothing_else() -> None:
    listed = [name for names in SECTIONS.values() for name in names]
    assert len(listed) == len(set(listed)) > 30
    text = cli.get_help(click.Context(cli, info_name="mailtide"))
    for title, names in SECTIONS.items():
        section = text.split(f"\n{title}:\n", 1)[1].split("\n\n", 1)[0]
        assert [line.split()[0] for line in section.splitlines()] == list(names)


def test_a_home_given_to_an_earlier_command_is_not_suggested(tmp_path: Path) -> None:
    given, meant = str(tmp_path / "given"), str(tmp_path / "meant")
    assert given in CliRunner().invoke(cli, ["--home", given, "init"]).stdout.splitlines()[-1]
    told = CliRunner().invoke(cli, ["init"], env={"MAILTIDE_HOME": meant}).stdout.splitlines()
    assert meant in told[0] and "--home" not in told[-1]
