"""A run that others carry out over a broker: seen on its way, waited for, and given up with a reason when nobody is there.

The request is a row of the store, and its event waits in the store's outbox. The daemon with the role ``assign`` hands it
to the broker and decides on what comes back; one with the role ``train``, here or elsewhere, trains.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from pipeline.config.settings import Settings
from pipeline.errors import BusError, RunError
from pipeline.events import Topic
from pipeline.runs.requests import RunRequest
from registry.decide import decision_of
from streams.bus.kafka import KafkaBus
from streams.owning.remote_store import RemoteStore
from streams.owning.stores import OpenStore
from streams.runs.retraining import TRAINER
from streams.runs.reviving import revive, set_aside

OnProgress = Callable[[float, float, str], None]

LOOK_SECONDS = 0.5
"""How often the store is asked for a verdict."""
BROKER_LOOK_SECONDS = 5.0
"""How often the broker is asked what stands in the way."""
ABSENT_SECONDS = 20.0
"""How long something may stand in the way: a daemon that is started again is back by then."""

START = "start `mailtide run` with the roles assign and train (docs/kafka.md)"


class Requesting:
    """What :mod:`streams.runs.sessions` needs of those who train. ``carry_out`` ends with the verdict, or raises
    why not."""

    def __init__(self, settings: Settings, open_store: OpenStore, on_progress: OnProgress) -> None:
        self._open_store = open_store
        self._on_progress = on_progress
        self._bus = KafkaBus(settings.bus)

    def __enter__(self) -> Requesting:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bus.close()

    def require(self) -> None:
        """Raises ``RunError`` when no daemon holds the store, before anything is asked for; ``BusError`` when the broker
        cannot be used."""
        with self._open_store() as store:
            if not isinstance(store, RemoteStore):
                raise RunError("runs of this home go over a broker, and no daemon is here to hand them on", hint=START)
        self._bus.attended(TRAINER, Topic.RUN_REQUESTED)

    def carry_out(self, request: RunRequest) -> None:
        """Raises ``RunError`` when the run was set aside, or when nobody takes it for a while: it stays requested."""
        revive(self._bus, request)
        absent_since: float | None = None
        look_at = 0.0
        why = ""
        while not self._is_decided(request, why):
            now = time.monotonic()
            if now >= look_at:
                why = self._obstacle(request)
                absent_since = None if not why else absent_since or now
                look_at = now + BROKER_LOOK_SECONDS
            if absent_since is not None and now - absent_since >= ABSENT_SECONDS:
                raise RunError(f"run {request.run_id} is requested and waits: {why}", hint=START)
            time.sleep(LOOK_SECONDS)

    def _is_decided(self, request: RunRequest, why: str) -> bool:
        with self._open_store() as store:
            if isinstance(store, RemoteStore):
                training = store.owner_state().training
                self._on_progress(training.done, training.total, why or training.words)
            return decision_of(store, request) is not None

    def _obstacle(self, request: RunRequest) -> str:
        """Why the run does not go on just now; empty when it may. Raises ``RunError`` when it was set aside."""
        try:
            for dead in set_aside(self._bus, request):
                raise RunError(f"the run cannot go on: {dead.error}", hint="mend that and run the same command again")
            if not self._bus.attended(TRAINER, Topic.RUN_REQUESTED):
                return "no process trains"
        except BusError as error:
            return error.message
        with self._open_store() as store:
            return "" if isinstance(store, RemoteStore) else "the daemon that decides has stopped"
