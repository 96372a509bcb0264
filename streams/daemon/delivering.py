"""Hands over what a broker has for this process, and waits where nothing comes or something stands in the way."""

from __future__ import annotations

import logging
import threading

from pipeline.errors import BusError, MailtideError
from pipeline.events import Event
from streams.bus.contract import Bus, Handler, Interrupted
from streams.daemon.board import Board, TrainingState
from streams.feeds.backoff import delays

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 60.0, 3600.0
"""How long what a person must mend is left alone: first, and at most."""


class Delivering:
    """Deliveries of one bus, over and over. A broker that is away is told of once, and asked again later."""

    def __init__(self, what: str, bus: Bus, stop: threading.Event) -> None:
        self._what = what
        self._bus = bus
        self._stop = stop
        self._waits = delays()
        self._trouble = ""
        self._idle = threading.Event()

    def is_idle(self) -> bool:
        """Whether there was nothing the last time."""
        return self._idle.is_set()

    def run(self) -> None:
        """Until the stop is set."""
        while not self._stop.is_set():
            if not self.once():
                self._idle.set()
                self._stop.wait(LOOK_SECONDS)
            self._idle.clear()

    def once(self) -> int:
        """What is there now; returns how much that was, 0 also when the broker is away, after a while."""
        try:
            handed = self._bus.deliver()
        except BusError as error:
            if str(error) != self._trouble:
                log.warning("%s waits: %s", self._what, error)
            self._trouble = str(error)
            self._stop.wait(next(self._waits))
            return 0
        if self._trouble:
            log.info("%s goes on", self._what)
        self._trouble, self._waits = "", delays()
        return handed


def patient(handler: Handler, board: Board, stop: threading.Event) -> Handler:
    """A handler that tries again, less and less often, as long as a person can mend what stands in its way."""

    def handle(event: Event) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                handler(event)
            except MailtideError as fault:
                log.warning("%s cannot be carried out: %s", event.id, fault)
                board.training_is(TrainingState("stuck", text=str(fault)))
                if stop.wait(pause):
                    raise Interrupted("stopped while waiting to try again") from fault
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            else:
                board.training_is(TrainingState())
                return

    return handle
