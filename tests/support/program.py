"""The program as people meet it: commands in processes of their own, with what they print and their exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import REPOSITORY

PEOPLE_KEY = "5a" * 32
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
NOT_LIGHT = ("accelerate", "bitsandbytes", "peft", "sentence_transformers", "torch", "transformers", "__editable__")

Completed = subprocess.CompletedProcess[str]


def mailtide(home: Path, *arguments: str) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "streams.cli", "--home", str(home), *arguments]


def run(home: Path, *arguments: str, timeout: float = 120) -> Completed:
    """One command, to its end."""
    return execute(mailtide(home, *arguments), timeout)


def execute(command: Sequence[str], timeout: float = 120) -> Completed:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, check=False, env=ENVIRONMENT, cwd=REPOSITORY
    )


def make(home: Path, *settings: str) -> Path:
    """A new home with settings, and always the same people key."""
    key = home.parent / "people.key"
    key.write_text(PEOPLE_KEY)
    options = [part for setting in settings for part in ("--set", setting)]
    made = run(home, "init", "--people-key", str(key), *options)
    assert made.returncode == 0, made.stderr
    return home


def without_training(folder: Path, home: Path, *arguments: str) -> list[str]:
    """The command line in a Python that has every installed package but those of the training extra."""
    folder.mkdir()
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not entry.name.lower().startswith(NOT_LIGHT):
            (folder / entry.name).symlink_to(entry)
    program = "import sys; sys.path[:0] = sys.argv[1:3]; from streams.cli import main; main(sys.argv[3:])"
    return [sys.executable, "-I", "-S", "-c", program, str(REPOSITORY), str(folder), "--home", str(home), *arguments]


def complaint(done: Completed) -> str:
    """The one line that a refused command says, after lines of progress; it must be the only one, and no traceback."""
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith(("import ", "retrain "))]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("mailtide: "), done.stderr
    assert "; " in lines[0], f"no next step: {lines[0]}"
    return lines[0]
