"""One line when a broker is in trouble, instead of what the client library logs meanwhile: some forty lines a second."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

LIBRARY = "aiokafka"
LASTS_SECONDS = 3.0
"""A trouble that is over sooner is none: the library tries again, and it worked."""
QUIET_SECONDS = 15.0
"""After so long without a complaint, the next one begins a new trouble."""

log = logging.getLogger(__name__)


class OneLine(logging.Handler):
    """Takes the library's complaints, and passes on one per trouble that lasts. All of them remain readable at DEBUG."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._clock = clock
        self._since = self._last = -QUIET_SECONDS
        self._told = False

    def emit(self, record: logging.LogRecord) -> None:
        now = self._clock()
        if now - self._last >= QUIET_SECONDS:
            self._since, self._told = now, False
        self._last = now
        line = " ".join(record.getMessage().split())
        log.debug("%s: %s", record.name, line)
        if not self._told and now - self._since >= LASTS_SECONDS:
            self._told = True
            log.warning("the Kafka broker is in trouble, and is tried again until it answers: %s", line)


def calm() -> None:
    """Puts the library's log behind one :class:`OneLine`; may be repeated."""
    library = logging.getLogger(LIBRARY)
    if not any(isinstance(handler, OneLine) for handler in library.handlers):
        library.addHandler(OneLine())
        library.propagate = False
