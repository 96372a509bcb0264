"""The daemon itself: opens the store, starts its parts as threads, and ends them all when one fails or when told to."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

from pipeline.errors import MailtideError, RunError, UsageError
from pipeline.home import Home
from pipeline.settings import Settings
from pipeline.store import Store
from pipeline.versions import VERSIONS
from streams.daemon.board import Board, DaemonState
from streams.daemon.clockwork import Clockwork
from streams.daemon.following import Following
from streams.daemon.intake import Intake
from streams.daemon.training import Training
from streams.feeds.opening import live_feeds
from streams.held import HeldStore
from streams.lease import training_lease
from streams.owner_socket import OwnerSocket
from streams.parsing import ParserPool
from streams.times import utc_now

log = logging.getLogger(__name__)

STOP_SECONDS = 6.0
"""How long parts are waited for when the daemon stops; what takes longer is left, and redone after the next start."""

LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Part:
    """Something that runs in a thread of its own until the daemon stops."""

    name: str
    run: Callable[[], None]


class Daemon:
    """All parts of one home in one process. ``stop`` may be called from any thread or signal handler."""

    def __init__(self, home: Home, settings: Settings) -> None:
        """Nothing is opened yet. Raises ``UsageError`` when the settings name no feed."""
        if not any(mailbox.feeds for mailbox in settings.mailboxes.values()):
            raise UsageError(
                "no mailbox has a feed to follow",
                hint="name them in the home's config.yaml under mailboxes.NAME.feeds (docs/feeds.md)",
            )
        self._home = home
        self._settings = settings
        self._stop = threading.Event()
        self._finishing = threading.Event()
        self._board = Board(os.getpid(), utc_now(), ("all",))
        self._followings: list[Following] = []
        self._training: Training | None = None
        self._failure: BaseException | None = None

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
            held = HeldStore(Store.open(self._home, self._settings, VERSIONS))
            stack.callback(held.close)
            if not stack.enter_context(training_lease(self._home)):
                raise RunError("another process trains in this home", hint="wait for it, or stop it")
            pool = stack.enter_context(ParserPool(self._settings.parse))
            intake = Intake(held, self._home, self._settings)
            clockwork = Clockwork(self._board)
            for name, mailbox in self._settings.mailboxes.items():
                feeds = live_feeds(self._home, name, mailbox)
                if feeds:
                    intake.register(name, feeds)
                    intake.close_due(name, pending=True)
                    clockwork.add(name, intake)
                self._followings += [
                    Following(name, feed, intake, lambda batch: list(pool.answers(batch)), self._board, self._stop)
                    for feed in feeds
                ]
            training = self._training = Training(self._home, self._settings, held, self._board, self._stop)
            door = OwnerSocket(self._home, held, lambda: self._board.state)
            stack.callback(door.close)
            stack.enter_context(clockwork)
            parts = [Part("training", training.run), *(Part(one.feed.name, one.run) for one in self._followings)]
            stack.enter_context(_Threads([*parts], self._stop, self._failed, training.stop))
            log.info("following %d feeds; `mailtide status` tells more", len(self._followings))
            self._wait(held)
        if self._failure is not None:
            raise self._failure
        if self._finishing.is_set():
            self._raise_trouble()

    def _wait(self, held: HeldStore) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            if self._finishing.is_set() and (self._troubles() or self._is_idle(held)):
                return

    def _is_idle(self, held: HeldStore) -> bool:
        assert self._training is not None
        return all(one.idle for one in self._followings) and self._training.idle and not held.changed.is_set()

    def _troubles(self) -> list[MailtideError]:
        assert self._training is not None
        faults: list[MailtideError | None] = [self._training.fault, *(one.away for one in self._followings)]
        return [fault for fault in faults if fault is not None]

    def _raise_trouble(self) -> None:
        for trouble in self._troubles():
            raise trouble

    def _failed(self, part: Part, error: BaseException) -> None:
        if self._failure is None and not self._stop.is_set():
            if not isinstance(error, MailtideError):
                log.error("%s failed", part.name, exc_info=error)
            self._failure = error
        self._stop.set()


class _Threads:
    """The parts, running. On leaving, all are told to stop and waited for, for a while."""

    def __init__(
        self,
        parts: list[Part],
        stop: threading.Event,
        on_failure: Callable[[Part, BaseException], None],
        on_stop: Callable[[], None],
    ) -> None:
        self._stop = stop
        self._on_failure = on_failure
        self._on_stop = on_stop
        self._threads = [threading.Thread(target=self._run, args=(part,), name=part.name, daemon=True) for part in parts]

    def __enter__(self) -> _Threads:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._on_stop()
        for thread in self._threads:
            thread.join(STOP_SECONDS / len(self._threads))

    def _run(self, part: Part) -> None:
        try:
            part.run()
        except BaseException as error:
            self._on_failure(part, error)
