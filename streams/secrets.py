"""Passwords and tokens, from where the settings say they are: asked for when needed, kept nowhere, and told to nobody.

No error holds what a place answered, not even as the exception that it came from: it might be, or contain, the secret.
"""

from __future__ import annotations

import os
import shlex
import subprocess

from pipeline.config.feed_settings import SecretSettings
from pipeline.errors import SecretError
from pipeline.installing import install_command
from streams.programs import run_program, words_of

COMMAND_SECONDS = 60.0


def secret_of(settings: SecretSettings, *, seconds: float = COMMAND_SECONDS) -> str:
    """The password or token, as its place has it now: of a command, the first line that it prints within ``seconds``.

    Raises ``SecretError``, which names the place and the next step.
    """
    if settings.env is not None:
        secret = _from_environment(settings.env)
    elif settings.keyring is not None:
        secret = _from_keyring(settings.keyring)
    else:
        secret = _from_command(settings.command or "", seconds)
    empty, torn = not secret, "\n" in secret or "\r" in secret or "\0" in secret
    if empty or torn:
        del secret
        raise SecretError(f"{place_of(settings)} holds {'nothing' if empty else 'more than one line'}", hint="put it there")
    return secret


def place_of(settings: SecretSettings) -> str:
    """Where a secret is, for people. Of a command only the program: its arguments may be private."""
    if settings.env is not None:
        return f"environment variable {settings.env}"
    if settings.keyring is not None:
        return f"keyring entry {settings.keyring}"
    return f"command {_program(settings.command or '')}"


def _from_environment(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise SecretError(f"environment variable {name} is not set", hint=f"set it where mailtide runs: export {name}=...")
    return value.strip("\r\n")


def _from_keyring(entry: str) -> str:
    service, slash, user = entry.rpartition("/")
    if not slash or not service or not user:
        raise SecretError(f"{entry!r} is no keyring entry", hint="write it as SERVICE/USER")
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        raise SecretError("the package keyring is not installed", hint=install_command("keyring")) from None
    problem = ""
    secret: str | None = None
    try:
        secret = keyring.get_password(service, user)
    except KeyringError as error:
        problem = type(error).__name__
    if problem:
        raise SecretError(f"the keyring cannot be asked for {entry} ({problem})", hint="unlock it, or name env or command")
    if secret is None:
        raise SecretError(
            f"the keyring has no entry {entry}", hint=f"make it: {shlex.join(['keyring', 'set', service, user])}"
        )
    return secret


def _from_command(command: str, seconds: float) -> str:
    by_hand = "run it by hand, as the user that mailtide runs as, to see what it says"
    output = run_program(command, "a secret", SecretError, seconds=seconds, by_hand=by_hand, stdout=subprocess.PIPE)
    secret = output.partition(b"\n")[0].rstrip(b"\r").decode("utf-8", "replace")
    if "\ufffd" in secret:
        del output, secret
        raise SecretError(f"the command {_program(command)} printed what is no UTF-8 text", hint=by_hand)
    return secret


def _program(command: str) -> str:
    return (words_of(command) or ["?"])[0]
