"""The two installations that are put to the test: one process without a broker, and every role in its own with one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.home import Home
from retrain import worker
from streams.parsers import process as parser
from tests.chaos.parts import BrokerPart, Child, MailServer, Part, Role
from tests.chaos.post import Source
from tests.support.daemons import TINY, make_home
from tests.support.dovecot import Dovecot
from tests.support.kafka import Broker
from tests.support.program import run


@dataclass(frozen=True, slots=True)
class System:
    """A home and everything that works on it."""

    home: Home
    roles: tuple[Role, ...]
    parts: tuple[Part, ...]

    def tend(self) -> None:
        """Starts again what ended by itself."""
        for role in self.roles:
            role.tend()


def settings(sources: Sequence[Source], window: int, **others: Any) -> dict[str, Any]:
    """Windows and rows follow from the mail alone: they close by its own dates and by count."""
    return {
        "mailboxes": {source.mailbox: {"clock": "header", "feeds": [source.feed]} for source in sources},
        "window": {"bootstrap": window, "count": window, "age": None},
        "model": TINY,
        "train": {"epochs": 1, "threads": 1},
        "eval": {"max_chunks": 20},
        # However long training is kept from its work, the next run takes all that waits.
        "replay": {"max_new_windows": 10_000},
        **others,
    }


@contextmanager
def embedded(root: Path, sources: Sequence[Source], window: int, server: Dovecot) -> Iterator[System]:
    """One daemon, with parsers in processes of their own."""
    given = settings(sources, window, auto_retrain=True, parse={"processes": 2})
    daemon = Role("daemon", make_home(root / "home", given))
    parts: tuple[Part, ...] = (
        daemon,
        Child("parser", daemon, parser.__name__),
        Child("trainer", daemon, worker.__name__),
        MailServer(server),
    )
    with _running(System(Home(root / "home"), (daemon,), parts)) as system:
        yield system


@contextmanager
def over_kafka(root: Path, sources: Sequence[Source], window: int, server: Dovecot, broker: Broker) -> Iterator[System]:
    """Each role a process, two of them parsing. The assigner's process relays events and decides on runs too."""
    bus = {
        "kind": "kafka",
        "brokers": broker.address,
        "prefix": f"chaos{os.urandom(4).hex()}.",
        "partitions": 3,
        "in_flight": 200,
    }
    home = make_home(root / "home", settings(sources, window, auto_retrain=True, bus=bus))
    made = run(home.root, "topics", "create")
    assert made.returncode == 0, made.stderr
    names = {
        "feed": "feed",
        "parser 1": "parse",
        "parser 2": "parse",
        "assigner": "assign",
        "GPU consumer": "train",
        "deployer": "deploy",
    }
    roles = {name: Role(name, home, "--role", role) for name, role in names.items()}
    trainer = Child("trainer", roles["GPU consumer"], worker.__name__)
    parts: tuple[Part, ...] = (*roles.values(), trainer, BrokerPart(broker), MailServer(server))
    with _running(System(home, tuple(roles.values()), parts)) as system:
        yield system


@contextmanager
def _running(system: System) -> Iterator[System]:
    """All started; none is left at the end."""
    try:
        for role in system.roles:
            role.start()
        yield system
    finally:
        for role in system.roles:
            role.kill()


def stop(system: System) -> list[str]:
    """Asks every role to end; what did not end well."""
    faults = []
    for role in system.roles:
        try:
            code = role.stop()
        except subprocess.TimeoutExpired:
            faults.append(f"{role.name} did not stop when it was asked to")
            continue
        if code != 0:
            faults.append(f"{role.name} ended with {code} when it was asked to stop")
    return faults
