"""The daemon's deployment: a thread of its own, so that neither a run that trains nor a target that is away delays it."""

from __future__ import annotations

import logging
import threading
from datetime import datetime, timedelta

from pipeline.config.settings import Settings
from pipeline.errors import MailtideError
from pipeline.home import Home
from pipeline.times import utc_now
from registry.deploy.converging import retry_at
from registry.deploy.standing import Standing
from streams.bus.contract import Bus
from streams.daemon.delivering import Delivering
from streams.daemon.parts import Part
from streams.deploying import deploy, subscribe_deployment
from streams.owning.stores import OpenStore

log = logging.getLogger(__name__)

LOOK_SECONDS = 30.0
"""How often targets are looked at when nothing was promoted: a command of another process may have begun something."""


class Deploying:
    """Takes promotions from a bus and brings the targets to them. ``news`` is set when the bus may have something, and
    ``look`` is after how many seconds it is asked all the same."""

    def __init__(
        self,
        home: Home,
        settings: Settings,
        bus: Bus,
        open_store: OpenStore,
        stop: threading.Event,
        *,
        news: threading.Event,
        look: float = LOOK_SECONDS,
    ) -> None:
        self._home = home
        self._settings = settings
        self._bus = bus
        self._open_store = open_store
        self._stop = stop
        self._news = news
        self._look = look
        self._due = utc_now()
        self._trouble = ""
        self._idle = threading.Event()
        subscribe_deployment(bus, home)
        self._delivering = Delivering("deployment", bus, stop)

    def part(self) -> Part:
        """As a part of the daemon. A target that is away is no trouble of the daemon: `mailtide status` tells of it."""
        return Part("deployment", self.run, self.stop, idle=lambda: self._idle.is_set() and not self._news.is_set())

    def run(self) -> None:
        """Until the stop is set."""
        while not self._stop.is_set():
            # Cleared before looking, so that what is written meanwhile is looked at next time.
            self._news.clear()
            if self._delivering.once() or utc_now() >= self._due:
                self._deploy()
                continue
            self._idle.set()
            self._news.wait(max(0.0, min(self._look, (self._due - utc_now()).total_seconds())))
            self._idle.clear()

    def stop(self) -> None:
        """Wakes it once the stop is set, from another thread."""
        self._bus.stop()
        self._news.set()

    def _deploy(self) -> None:
        trouble, found = "", []
        try:
            found = deploy(self._home, self._settings, self._open_store)
        except MailtideError as error:
            trouble = str(error)
        if trouble and trouble != self._trouble:
            log.warning("deployment waits: %s", trouble)
        self._trouble = trouble
        self._due = min([utc_now() + timedelta(seconds=LOOK_SECONDS), *_moments(found)])


def _moments(found: list[Standing]) -> list[datetime]:
    """When something is to be tried again, or let go of."""
    tries = [moment for one in found if (moment := retry_at(one)) is not None]
    return [*tries, *(left.not_before for one in found for left in one.leftovers if left.not_before > utc_now())]
