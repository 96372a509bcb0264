"""The parts of the mail path as processes of their own: ``python -m tests.support.roles ROLE HOME [ARCHIVE MAILBOX]``.

Each ends with SIGTERM; ``feed`` also when the archive's mail is taken.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from pipeline.config.configuration import read_home
from pipeline.config.settings import Settings
from pipeline.home import Home
from pipeline.store import Store
from pipeline.times import utc_now
from pipeline.versions import VERSIONS
from streams.feeds.mbox import MboxFeed
from streams.mailpath import assigning, feeding, parsing
from streams.owning.owner import Owner
from tests.conftest import REPOSITORY
from tests.support.program import ENVIRONMENT


class Archive(MboxFeed):
    """An archive as a feed that is read once."""

    def wait(self, seconds: float, stop: threading.Event) -> None:
        stop.wait(seconds)

    def close(self) -> None:
        """Nothing is held between passes."""


@contextmanager
def opened(home: Home, settings: Settings) -> Iterator[assigning.OpenOwner]:
    """A store held for long, and its owner."""
    with Store.open(home, settings, VERSIONS) as store:
        owner = Owner(store, home, settings, utc_now)

        @contextmanager
        def open_owner() -> Iterator[tuple[Store, Owner]]:
            yield store, owner

        yield open_owner


def feed(home: Home, archive: Path, mailbox: str, stop: threading.Event) -> None:
    settings = settings_of(home)
    feeding.run(home, settings.bus, {mailbox: [Archive(home, mailbox, archive)]}, stop, once=True)


def parse(home: Home, stop: threading.Event) -> None:
    settings = settings_of(home)
    parsing.run(home, settings.bus, settings.parse, stop)


def assign(home: Home, stop: threading.Event) -> None:
    settings = settings_of(home)
    with opened(home, settings) as open_owner:
        assigning.run(home, settings, open_owner, stop)


def settings_of(home: Home) -> Settings:
    return read_home(home, environment={})


def role(name: str, home: Path, *arguments: str, log: Path | None = None) -> subprocess.Popen[bytes]:
    """A role in a process that is started now and dies with this one; what it says is added to ``log``."""
    command = [sys.executable, "-m", "tests.support.roles", name, str(home), *arguments]
    with (log or home.parent / f"{name}.log").open("ab") as said:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env=ENVIRONMENT,
            cwd=REPOSITORY,
        )


def main(name: str, home: Path, *arguments: str) -> None:
    logging.basicConfig(level=logging.WARNING)
    stop = threading.Event()
    for wanted in (signal.SIGTERM, signal.SIGINT):
        signal.signal(wanted, lambda *_: stop.set())
    works: dict[str, Callable[..., None]] = {"parse": parse, "assign": assign}
    work = (
        partial(feed, Home(home), Path(arguments[0]), arguments[1]) if name == "feed" else partial(works[name], Home(home))
    )
    work(stop)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
