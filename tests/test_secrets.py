"""Secrets come from where the settings say, and turn up nowhere else."""

from __future__ import annotations

import builtins
import shlex
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked
from pydantic import ValidationError

from pipeline.config.feed_settings import SecretSettings
from pipeline.errors import SecretError
from streams.secrets import place_of, secret_of

SECRET = "correct horse battery staple"
SAY = f"print({SECRET[::-1]!r}[::-1], flush=True)"


class Shelf(KeyringBackend):  # type: ignore[misc]
    """A keyring in memory."""

    priority = 1.0

    def __init__(self, entries: dict[tuple[str, str], str], *, locked: bool = False) -> None:
        super().__init__()
        self.entries = entries
        self.locked = locked

    def get_password(self, service: str, username: str) -> str | None:
        if self.locked:
            raise KeyringLocked(f"locked, and {SECRET} is in it")
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.entries[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.entries[service, username]


@pytest.fixture(autouse=True)
def own_keyring() -> Iterator[None]:
    before = keyring.get_keyring()
    yield
    keyring.set_keyring(before)


def python(program: str) -> str:
    return shlex.join([sys.executable, "-c", program])


def refused(settings: SecretSettings, **options: Any) -> str:
    """The refusal, which must say a next step and hold no secret: not in its words, its causes or its frames."""
    with pytest.raises(SecretError) as caught:
        secret_of(settings, **options)
    assert caught.value.hint
    assert caught.value.__cause__ is None
    frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    for frame in [*frames.stack, *(frames.__context__.stack if frames.__context__ else [])]:
        assert SECRET not in str(frame.locals), frame
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SecretSettings(env="ANN_PASSWORD")
    monkeypatch.setenv("ANN_PASSWORD", f"{SECRET}\n")
    assert secret_of(settings) == SECRET
    monkeypatch.setenv("ANN_PASSWORD", f"{SECRET}\nand more")
    assert "environment variable ANN_PASSWORD holds more than one line" in refused(settings)
    monkeypatch.setenv("ANN_PASSWORD", "")
    assert "holds nothing" in refused(settings)
    monkeypatch.delenv("ANN_PASSWORD")
    assert refused(settings) == (
        "environment variable ANN_PASSWORD is not set; set it where mailtide runs: export ANN_PASSWORD=..."
    )


def test_from_the_keyring() -> None:
    settings = SecretSettings(keyring="imap/mail.example.org/ann")
    keyring.set_keyring(Shelf({("imap/mail.example.org", "ann"): SECRET}))
    assert secret_of(settings) == SECRET
    keyring.set_keyring(Shelf({}))
    assert "no entry imap/mail.example.org/ann; make it: keyring set imap/mail.example.org ann" in refused(settings)
    keyring.set_keyring(Shelf({}, locked=True))
    assert "(KeyringLocked); unlock it" in refused(settings)
    assert "write it as SERVICE/USER" in refused(SecretSettings(keyring="ann"))


def test_without_the_package_keyring_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.partition(".")[0] == "keyring":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    said = refused(SecretSettings(keyring="imap/ann"))
    assert "the package keyring is not installed" in said and "[keyring]" in said


def test_from_a_command_its_first_line() -> None:
    assert secret_of(SecretSettings(command=python(f"{SAY}; print('expires tomorrow')"))) == SECRET
    assert secret_of(SecretSettings(command=python(f"print({SECRET!r}, end='\\r\\n')"))) == SECRET


def test_a_command_is_run_without_a_shell(tmp_path: Path) -> None:
    assert secret_of(SecretSettings(command=f"echo $HOME; touch {tmp_path / 'made'}")).startswith("$HOME;")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (
            f"import sys; {SAY}; sys.stdout = sys.stderr; {SAY}; sys.exit(3)",
            "failed with exit code 3; run it",
        ),
        ("pass", "holds nothing"),
        ("import sys; sys.stdout.buffer.write(b'\\xff\\xfe')", "no UTF-8 text"),
        ("import os; os.kill(os.getpid(), 9)", "failed with exit code -9"),
    ],
)
def test_a_command_that_gives_none(program: str, said: str) -> None:
    assert said in refused(SecretSettings(command=python(program)))


def test_a_command_that_cannot_be_run() -> None:
    assert "the command no-such-program cannot be run: No such file" in refused(SecretSettings(command="no-such-program x"))
    assert "cannot be read; check its quotes" in refused(SecretSettings(command="pass 'mail"))


def test_a_command_that_does_not_end_is_ended_with_what_it_started() -> None:
    sleeper = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
    settings = SecretSettings(command=python(f"{SAY}; {sleeper}"))
    assert "did not end within 0.5 seconds" in refused(settings, seconds=0.5)


def test_a_place_is_told_without_the_arguments_of_a_command() -> None:
    assert place_of(SecretSettings(command=f"echo '{SECRET}'")) == "command echo"
    assert place_of(SecretSettings(env="X")) == "environment variable X"
    assert place_of(SecretSettings(keyring="imap/ann")) == "keyring entry imap/ann"


def test_settings_name_exactly_one_place() -> None:
    for given in ({}, {"env": "X", "command": "pass mail"}):
        with pytest.raises(ValidationError, match="exactly one of env, keyring and command"):
            SecretSettings.model_validate(given)
