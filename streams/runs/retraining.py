"""What happens on the way from a request to a verdict, as handlers of events: the same on any bus, all idempotent."""

from __future__ import annotations

import logging

from pipeline.chunking.archive import drop_older
from pipeline.config.settings import Settings
from pipeline.errors import MailtideError, RunError
from pipeline.events import Event, RunFinished, RunRequested, Topic
from pipeline.home import Home
from pipeline.runs.requests import read_request, read_result
from pipeline.times import utc_now
from registry.decide import Decision, decide_run, fail_run
from streams.bus.contract import Bus, Handler, Subscription
from streams.owning.stores import OpenStore
from streams.report.writing import try_to_write_report
from streams.runs.faults import require_inputs, tells_of_full_disk, tells_of_lost_device
from streams.runs.progress import published
from streams.runs.runner import OnStep, Runner, Step, WorkerDied

log = logging.getLogger(__name__)

WORKER_LIVES = 3
"""How often a run is continued after its training process vanished, before it is decided failed."""

STARTING = "start"
"""The stage of a run before its training process says anything."""

TRAINER = "trainer"
"""The consumer of requests."""


class Trainer:
    """Trains on a request and tells that it finished, or why it failed for good. Needs no store."""

    def __init__(self, home: Home, runner: Runner, bus: Bus, on_step: OnStep) -> None:
        self._home = home
        self._runner = runner
        self._bus = bus
        self._on_step = on_step

    def train(self, event: Event) -> None:
        """Raises what a person can put right: a full disk, a GPU that is gone, or an input that is missing or changed."""
        payload = event.payload()
        assert isinstance(payload, RunRequested)
        finished = RunFinished(mailbox=payload.mailbox, run_id=payload.run_id, ok=True)
        log.info("run %s of %s begins", payload.run_id, payload.mailbox)
        try:
            self._carry_out(payload.run_id)
        except RunError as error:
            self._refuse_faults(payload.run_id, error)
            finished = finished.model_copy(update={"ok": False, "detail": str(error)})
        log.info("run %s has %s", payload.run_id, "trained" if finished.ok else "failed")
        self._bus.publish([Event.of(finished, at=utc_now())])

    def _refuse_faults(self, run_id: str, error: RunError) -> None:
        """Raises when the fault is not the run's own."""
        if tells_of_full_disk(error.message) or tells_of_lost_device(error.message):
            raise error
        request = read_request(self._home.run(run_id))
        require_inputs(self._home, request)

    def _carry_out(self, run_id: str) -> None:
        with published(self._home, run_id, self._on_step) as hear:
            hear(Step(run_id, STARTING, 0, 0, ""))
            for life in range(1, WORKER_LIVES + 1):
                try:
                    self._runner.run(run_id, hear)
                    return
                except WorkerDied as error:
                    if life == WORKER_LIVES:
                        raise RunError(f"{error.message}, {WORKER_LIVES} times in a row", hint=error.hint) from error
                    hear(Step(run_id, STARTING, 0, 0, f"{error.message}; another one goes on from the last checkpoint"))


class Judge:
    """Records the evidence of finished runs, and their verdicts, which are in ``decisions`` by run."""

    def __init__(self, home: Home, settings: Settings, open_store: OpenStore) -> None:
        self.decisions: dict[str, Decision] = {}
        self._home = home
        self._settings = settings
        self._open_store = open_store

    def decide(self, event: Event) -> None:
        """Raises, and leaves the run undecided, when what it left is not whole."""
        payload = event.payload()
        assert isinstance(payload, RunFinished)
        folder = self._home.run(payload.run_id)
        request = read_request(folder)
        with self._open_store() as store:
            if payload.ok:
                result = read_result(folder)
                decision = decide_run(store, self._home, request, result, self._settings, utc_now(), "gate")
                try_to_write_report(store, self._home, request.run_id)
            else:
                decision = fail_run(store, request, payload.detail, utc_now(), "gate")
            made = store.query('SELECT run_id FROM requests WHERE mailbox = ? ORDER BY "at" DESC', [request.mailbox])
        for run_id in drop_older(self._home, [run_id for (run_id,) in made], self._settings.train.keep_sets):
            log.info("the training set of run %s is not kept any longer", run_id)
        self.decisions[payload.run_id] = decision


class Retraining:
    """All of it on one bus, in one process. ``faults`` are what kept runs from going on and can be put right, by mailbox:
    such a run stays undecided, its event is set aside, and the next retrain takes it up again."""

    def __init__(
        self, home: Home, settings: Settings, open_store: OpenStore, runner: Runner, bus: Bus, on_step: OnStep
    ) -> None:
        self.faults: dict[str, MailtideError] = {}
        self._trainer = Trainer(home, runner, bus, on_step)
        self._judge = Judge(home, settings, open_store)
        subscribe_training(bus, self._noting(self._trainer.train))
        subscribe_judgement(bus, self._noting(self._judge.decide))

    @property
    def decisions(self) -> dict[str, Decision]:
        """Verdicts so far, by run."""
        return self._judge.decisions

    def _noting(self, handler: Handler) -> Handler:
        def handle(event: Event) -> None:
            self.faults.pop(event.key, None)
            try:
                handler(event)
            except MailtideError as fault:
                self.faults[event.key] = fault
                raise

        return handle


def subscribe_training(bus: Bus, handler: Handler) -> None:
    """Subscribes a trainer to requests. What it refuses is for a person to mend, not to be tried again at once."""
    bus.subscribe(Subscription(TRAINER, Topic.RUN_REQUESTED, handler, max_attempts=1))


def subscribe_judgement(bus: Bus, handler: Handler) -> None:
    """Subscribes a judge to finished runs."""
    bus.subscribe(Subscription("owner", Topic.RUN_FINISHED, handler))
