"""The daemon's notices: each target is told in a thread of its own, so that one that is down holds up nothing."""

from __future__ import annotations

import logging
import threading

from pipeline.config.settings import Settings
from pipeline.home import Home
from streams.daemon.parts import Part
from streams.feeds.backoff import delays
from streams.notices.outgoing import Outgoing, Told
from streams.owning.held import HeldStore
from streams.runs.lease import notice_lease

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""How often the store is looked at when nobody has announced anything."""


def notice_parts(home: Home, settings: Settings, held: HeldStore, stop: threading.Event) -> list[Part]:
    """One part per target that the settings name."""
    telling = [Telling(home, settings, held, name, stop) for name in settings.notify.targets]
    return [Part(f"notify {one.target}", one.run, one.stop, idle=one.is_idle) for one in telling]


class Telling:
    """Tells one target for as long as the daemon runs. Tries that fail are repeated after 1 s, later up to 5 minutes, at
    random moments."""

    def __init__(self, home: Home, settings: Settings, held: HeldStore, target: str, stop: threading.Event) -> None:
        self.target = target
        self._home = home
        self._stop = stop
        self._news = held.listener()
        self._outgoing = Outgoing(target, settings, held.reading, held.writing)
        self._failing = False

    def is_idle(self) -> bool:
        """Whether all was told that the target takes: one that is down is not waited for."""
        return self._failing or not self._outgoing.waits()

    def run(self) -> None:
        """Until the stop is set."""
        while not self._stop.is_set():
            with notice_lease(self._home, self.target) as mine:
                if mine:
                    self._tell()
            # A command tells it just now.
            self._stop.wait(LOOK_SECONDS)

    def stop(self) -> None:
        """Wakes it once the stop is set, from another thread."""
        self._news.set()

    def _tell(self) -> None:
        waits, said = delays(), ""
        while not self._stop.is_set():
            # Cleared before looking, so that what is written meanwhile is looked at next time.
            self._news.clear()
            try:
                told = self._outgoing.tell_next()
            except Exception as error:
                if self._stop.is_set():
                    return
                # Whatever it is, mail and training go on.
                log.error("telling %s failed", self.target, exc_info=error)
                self._failing = True
                self._stop.wait(next(waits))
                continue
            trouble = str(self._outgoing.trouble or "")
            if trouble != said and trouble:
                log.warning("notices to %s wait: %s", self.target, trouble)
            said, self._failing = trouble, told is Told.FAILED
            if told is Told.FAILED:
                self._stop.wait(next(waits))
                continue
            waits = delays()
            if told is Told.NOTHING:
                self._news.wait(LOOK_SECONDS)
