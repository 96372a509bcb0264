"""A daemon in a process of its own, as people run it: started, looked at through the command line, stopped."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

import yaml

from pipeline.home import Home
from tests.support.program import ENVIRONMENT, execute, mailtide, run

PATIENCE_SECONDS = 150.0
TINY = {
    "context": 256,
    "builtin": {"base_tokens": 12_000, "width": 64, "layers": 2, "heads": 2, "vocabulary": 512},
}
"""A model that trains in a second."""


def make_home(root: Path, settings: dict[str, Any]) -> Home:
    """A new home with these settings, and always the same people key."""
    config = root.parent / f"{root.name}.yaml"
    config.write_text(yaml.safe_dump(settings))
    key = root.parent / "people.key"
    key.write_text("5a" * 32)
    made = execute(mailtide(root, "init", "--config", str(config), "--people-key", str(key)))
    assert made.returncode == 0, made.stderr
    return Home(root)


@contextmanager
def daemon(home: Home, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`mailtide run`, answering when it holds the store; what it says is in ``daemon.log`` beside the home. Killed when it
    is not gone at the end."""
    holds = "--role" not in arguments or "assign" in arguments
    log = home.root.with_name("daemon.log")
    if holds:  # what a killed one left would be taken for this one's, before it holds the store
        home.owner_socket.unlink(missing_ok=True)
    with log.open("a") as out:
        process = subprocess.Popen(
            mailtide(home.root, "run", *arguments),
            stdout=out,
            stderr=out,
            text=True,
            env=ENVIRONMENT,
            start_new_session=True,
        )
    try:
        until(lambda: not holds or home.owner_socket.exists() or process.poll() is not None)
        assert process.poll() is None, log.read_text(encoding="utf-8")
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def stop(process: subprocess.Popen[str], seconds: float = 30.0) -> int:
    """Asks it to stop, and gives its exit code."""
    process.send_signal(signal.SIGTERM)
    return process.wait(seconds)


def rows(home: Home, sql: str) -> list[dict[str, Any]]:
    """What a query answers, through the daemon when one runs."""
    done = run(home.root, "sql", sql, "--json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def until(condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """Returns as soon as the condition holds; fails after ``seconds``, which is no measure of anything."""
    end = monotonic() + seconds
    pause = Event()
    while not condition():
        assert monotonic() < end, "it did not come to that in time"
        pause.wait(0.05)
