"""The workflow that retrains on a runner of one's own: read by bash, by actionlint where it is, and run step by step."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from streams.cli.commands import cli
from streams.demo.mailbox import write_mailbox
from tests.conftest import REPOSITORY
from tests.test_readme import TINY

WORKFLOW = REPOSITORY / ".github" / "workflows" / "retrain.yml"
LABELS = REPOSITORY / ".github" / "actionlint.yaml"
BASH = ["bash", "--noprofile", "--norc", "-eo", "pipefail"]
GET_ACTIONLINT = "go install github.com/rhysd/actionlint/cmd/actionlint@latest"


def workflow() -> dict[Any, Any]:
    document = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def scripts() -> dict[str, dict[str, Any]]:
    """The steps that run something, by name."""
    steps = workflow()["jobs"]["retrain"]["steps"]
    found = {step["name"]: step for step in steps if "run" in step}
    assert list(found) == ["Install", "Import", "Plan", "Retrain", "Evaluation", "Notice"]
    return found


def test_it_runs_weekly_and_by_hand_on_a_runner_with_a_gpu_and_keeps_artefacts_even_of_a_failure() -> None:
    document = workflow()
    triggers = document[True]  # YAML 1.1 reads `on` as a truth value
    assert set(triggers) == {"schedule", "workflow_dispatch"} and len(triggers["schedule"]) == 1
    job = document["jobs"]["retrain"]
    assert {"self-hosted", "gpu"} <= set(job["runs-on"])
    kept = job["steps"][-1]
    assert kept["if"] == "always()" and kept["uses"].startswith("actions/upload-artifact@")
    assert document["permissions"] == {"contents": "read"}
    assert document["concurrency"]["cancel-in-progress"] is False


def test_inputs_reach_the_shell_as_variables_and_never_as_text_of_a_script() -> None:
    for name, step in scripts().items():
        assert "${{" not in step["run"], f"{name}: what somebody typed would be run"


@pytest.mark.parametrize("name", ["Install", "Import", "Plan", "Retrain", "Evaluation", "Notice"])
def test_every_script_is_bash_and_every_command_and_option_in_it_is_there(name: str) -> None:
    script = scripts()[name]["run"]
    subprocess.run([*BASH, "-n"], input=script, text=True, check=True, capture_output=True)
    for line in re.findall(r"^\s*(?:.*\|\| )?mailtide .*", script, re.MULTILINE):
        words = shlex.split(line[line.index("mailtide") :].split(" > ")[0].split(" | ")[0])[1:]
        command: click.Command = cli
        while isinstance(command, click.Group):
            found = command.get_command(click.Context(command), words.pop(0))
            assert found is not None, line
            command = found
        known = {option for parameter in command.params for option in parameter.opts}
        used = {option for option in re.findall(r"(--[a-z-]+)", line)}
        assert used <= known, line


def test_actionlint_finds_nothing() -> None:
    program = shutil.which("actionlint")
    if program is None:
        pytest.skip(f"actionlint is not here: {GET_ACTIONLINT}")
    done = subprocess.run(
        [program, "-no-color", "-shellcheck=", "-pyflakes=", "-config-file", str(LABELS), str(WORKFLOW)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.slow
def test_its_steps_retrain_a_mailbox_and_a_second_time_find_nothing_to_do(tmp_path: Path) -> None:
    write_mailbox(tmp_path / "mail.mbox", seed=7)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "mailtide").write_text(f'#!/bin/sh\nexec {sys.executable} -m streams.cli "$@"\n')
    (programs / "python").symlink_to(sys.executable)
    (programs / "mailtide").chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAILTIDE_")}
    environment = {
        **kept,
        **TINY,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "MAILTIDE_HOME": str(tmp_path / "home"),
        "MAIL_ARCHIVE": str(tmp_path / "mail.mbox"),
        "MAILBOX": "",
        "SETTING": "replay.max_new_windows=3",
        "OUT": "artefacts",
        "GITHUB_OUTPUT": str(tmp_path / "outputs"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }
    for expected in ("true", "false"):
        (tmp_path / "outputs").write_text("")
        for name, step in scripts().items():
            waits = "waits=true" in (tmp_path / "outputs").read_text()
            if name == "Install" or ("waits" in step.get("if", "") and not waits):
                continue
            done = subprocess.run(
                [*BASH, "-c", step["run"]], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{name}: {done.stderr}"
        assert f"waits={expected}" in (tmp_path / "outputs").read_text()
        environment["SETTING"] = ""
        subprocess.run(
            [str(programs / "mailtide"), "retrain", "--confirm"],
            cwd=tmp_path,
            env=environment,
            check=False,
            capture_output=True,
        )
    artefacts = {path.name for path in (tmp_path / "artefacts").iterdir()}
    assert {"import.json", "plan.json", "retrain.json", "verdict.txt", "receipt.json", "status.json"} <= artefacts
    assert json.loads((tmp_path / "artefacts" / "verify.json").read_text())
    assert (tmp_path / "summary.md").read_text()
