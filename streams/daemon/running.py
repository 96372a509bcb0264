"""The daemon itself: starts its parts, and ends them all when one fails, when told to, or when nothing is left to do."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from contextlib import ExitStack

from pipeline.config.settings import Settings
from pipeline.errors import UsageError
from pipeline.home import Home
from pipeline.times import utc_now
from streams.daemon.board import Board, DaemonState
from streams.daemon.parts import Part, Running

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.2
ROLES = ("feed", "parse", "assign", "train", "deploy")
"""What a daemon with a broker can be split into. Without one, it is all of them."""


class Daemon:
    """The roles of one home in one process. ``stop`` and ``finish`` may be called from any thread or signal handler."""

    def __init__(self, home: Home, settings: Settings, roles: Sequence[str] = ROLES) -> None:
        """Nothing is opened yet. Raises ``UsageError`` for roles that cannot be apart, and without a feed to read."""
        if settings.bus.kind == "embedded" and set(roles) != set(ROLES):
            raise UsageError("without a broker all roles are one process", hint="set bus: kafka, or leave out --role")
        if "feed" in roles and not any(mailbox.feeds for mailbox in settings.mailboxes.values()):
            raise UsageError(
                "no mailbox has a feed to follow",
                hint="name them in the home's config.yaml under mailboxes.NAME.feeds (docs/feeds.md)",
            )
        self._home = home
        self._settings = settings
        self._roles = tuple(role for role in ROLES if role in roles)
        self._stop = threading.Event()
        self._finishing = threading.Event()
        self._board = Board(os.getpid(), utc_now(), self._roles)

    @property
    def state(self) -> DaemonState:
        """How it is doing."""
        return self._board.state

    def stop(self) -> None:
        """Ends the daemon soon; nothing that was acknowledged is lost."""
        self._stop.set()

    def finish(self) -> None:
        """Ends the daemon as soon as every feed has been read and nothing is left to train."""
        self._finishing.set()

    def run(self) -> None:
        """Until it is stopped or has finished.

        Raises what ended a part; when it was to finish, also what keeps a feed or a run from going on.
        """
        with ExitStack() as stack:
            parts = self._parts(stack)
            running = stack.enter_context(Running(parts, self._stop))
            log.info("%s: %s", self._home.root, ", ".join(part.name for part in parts))
            self._wait(parts)
            log.info("%s: stopping", self._home.root)
        if running.failure is not None:
            raise running.failure
        if self._finishing.is_set():
            for part in parts:
                trouble = part.trouble()
                if trouble is not None:
                    raise trouble

    def _parts(self, stack: ExitStack) -> list[Part]:
        if self._settings.bus.kind == "embedded":
            from streams.daemon.embedded import embedded_parts

            return embedded_parts(stack, self._home, self._settings, self._board, self._stop)
        from streams.daemon.over_kafka import KafkaRoles

        roles = KafkaRoles(stack, self._home, self._settings, self._board, self._stop, self._finishing)
        return roles.parts(self._roles)

    def _wait(self, parts: Sequence[Part]) -> None:
        quiet = 0
        while not self._stop.wait(LOOK_SECONDS):
            if not self._finishing.is_set():
                continue
            if any(part.trouble() is not None for part in parts):
                return
            # What one part does may be work for the next, which has not seen it yet.
            quiet = quiet + 1 if all(part.idle() for part in parts) else 0
            if quiet >= QUIET_LOOKS[self._settings.bus.kind]:
                return


QUIET_LOOKS = {"embedded": 1, "kafka": 15}
"""How often in a row all parts must be idle before that is believed: on its way over a broker, work is in no part."""
