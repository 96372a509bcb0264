"""What can be killed: processes of the installation, processes that these start, and the servers that it uses."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Protocol

import psutil

from pipeline.home import Home
from tests.conftest import REPOSITORY
from tests.support.dovecot import Dovecot
from tests.support.kafka import Broker
from tests.support.program import ENVIRONMENT, mailtide

GONE_SECONDS = 60.0
STOP_SECONDS = 60.0


class Part(Protocol):
    """Something with a name that runs, can be killed as by a power cut, and started again."""

    name: str

    def runs(self) -> bool:
        """Whether there is anything to kill."""
        ...

    def kill(self) -> None:
        """Returns when it is gone."""
        ...

    def start(self) -> None: ...


class Role:
    """A process of ``mailtide run``. It dies with this process, and ``ended`` counts how often it ended unasked."""

    def __init__(self, name: str, home: Home, *arguments: str) -> None:
        self.name = name
        self.ended = 0
        self.log = home.root.with_name(f"{name.replace(' ', '-')}.log")
        self._command = mailtide(home.root, "run", *arguments)
        self._process: subprocess.Popen[bytes] | None = None

    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        with self.log.open("ab") as said:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self._command],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=ENVIRONMENT,
                cwd=REPOSITORY,
                start_new_session=True,
            )

    def tend(self) -> None:
        """Starts it again when it has ended by itself, as a service manager would."""
        if self._process is not None and self._process.poll() is not None:
            self.ended += 1
            self.start()

    def kill(self) -> None:
        if self._process is not None:
            mine = self.children()
            self._process.kill()
            self._process.wait()
            # They die with their parent, and must not be met again.
            _until_dead(mine)

    def stop(self) -> int:
        """Asks it to end; its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(STOP_SECONDS)

    def children(self, module: str = "") -> list[psutil.Process]:
        """The processes that it has started, those that run ``module`` only."""
        if self._process is None or self._process.poll() is not None:
            return []
        found = psutil.Process(self._process.pid).children(recursive=True)
        return [child for child in found if not module or module in _command(child)]

    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""


class Child:
    """A process that a role starts when it needs it, and starts again when it is gone."""

    def __init__(self, name: str, role: Role, module: str) -> None:
        self.name = name
        self._role = role
        self._module = module

    def runs(self) -> bool:
        return bool(self._role.children(self._module))

    def kill(self) -> None:
        first = self._role.children(self._module)[:1]
        for child in first:
            child.kill()
        _until_dead(first)

    def start(self) -> None:
        """Nobody does but its role."""


class BrokerPart:
    """The Kafka broker."""

    name = "broker"

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def runs(self) -> bool:
        return True

    def kill(self) -> None:
        self._broker.kill()

    def start(self) -> None:
        self._broker.start()


class MailServer:
    """The IMAP server, with every process that serves a client."""

    name = "mail server"

    def __init__(self, server: Dovecot) -> None:
        self._server = server

    def runs(self) -> bool:
        return True

    def kill(self) -> None:
        self._server.kill()

    def start(self) -> None:
        self._server.start()


def _command(process: psutil.Process) -> list[str]:
    """Its command line; nothing for one that has ended."""
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:
        return []


def _until_dead(processes: Sequence[psutil.Process]) -> None:
    """Returns when none of them runs any more; one that its parent has not asked about yet is dead all the same."""
    end = time.monotonic() + GONE_SECONDS
    pause = Event()
    while any(_lives(process) for process in processes):
        assert time.monotonic() < end, "a process that was killed does not end"
        pause.wait(0.01)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def ends_of_logs(roles: list[Role]) -> str:
    """What each role said last, for who looks for a cause."""
    return "\n".join(f"--- {role.name} ({Path(role.log).name})\n{role.last_words()}" for role in roles)
