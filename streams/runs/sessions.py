"""Retrains from start to verdict in one process: claim, train, decide, deploy, and a report of each run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import TracebackType

from pipeline.chunking.tier_limits import TierUse
from pipeline.config.settings import Settings
from pipeline.errors import NothingToDo, RunError
from pipeline.home import Home
from pipeline.runs.plan import MANIFEST
from pipeline.runs.requests import RunRequest, read_result
from pipeline.sampling.manifest import read_manifest
from pipeline.store import Store
from pipeline.store.rows import ClosingRow, RequestRow
from pipeline.times import utc_now
from registry.decide import decision_of
from registry.evidence import gather
from registry.gate import RuleOutcome
from registry.named import no_run
from streams.bus.embedded import EmbeddedBus
from streams.deploying import deploy_pending
from streams.owning.remote_store import RemoteStore
from streams.owning.stores import OpenStore, opener
from streams.runs.bases import ready_base
from streams.runs.budget import require_budget
from streams.runs.claims import NothingToLearn, Windows, claim, last_failure
from streams.runs.course import course_of, kept_checkpoint
from streams.runs.lease import training_lease
from streams.runs.planning import require_room
from streams.runs.requesting import LOOK_SECONDS, OnProgress, Requesting
from streams.runs.retraining import Retraining
from streams.runs.reviving import revive, set_aside
from streams.runs.runner import Runner, Step, require_training
from streams.runs.telling import step_line


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run did. Losses are nats per token on the val chunks that the gate compared: ``before`` under the champion
    that was challenged (the bare base where there was none), ``after`` under the run's adapter. ``cost`` is what was
    noted of it. ``tiers`` say what was used of each quality tier, where the settings limited any. ``failed_before``
    is the run that failed on just this evidence before it. ``course`` says how training went, in sentences."""

    run_id: str
    mailbox: str
    windows: tuple[int, ...]
    mails: int
    adapter_id: str
    parent: str | None
    champion: str | None
    outcome: str
    reasons: tuple[str, ...]
    rules: tuple[RuleOutcome, ...]
    new_chunks: int
    rehearsal_chunks: int
    steps: int
    tokens: int
    seconds: float
    cost: float
    seconds_by_step: dict[str, float]
    new_before: float | None
    new_after: float | None
    old_before: float | None
    old_after: float | None
    tiers: tuple[TierUse, ...] = ()
    training_seconds: dict[str, float] = field(default_factory=dict)
    failed_before: str | None = None
    course: tuple[str, ...] = ()


def retrain(home: Home, settings: Settings, mailbox: str, windows: Windows, on_progress: OnProgress) -> Iterator[RunReport]:
    """Runs until nothing waits (with ``windows.each``) or once, yielding a report per run; an unfinished run goes first.

    Where a daemon trains in this home, or there is a broker, others are asked to, and waited for. The store is open only
    between the steps of a run, never while training. Raises ``NothingToDo`` when there was nothing at all, ``RunError``
    when a run cannot fit this device, would pass ``cost.cap`` or cannot go on, ``BusError`` when it is to go over a broker
    that cannot be used.
    """
    open_store = opener(home, settings)
    done = 0
    with _carrier(home, settings, open_store, on_progress) as carrier:
        carrier.require()
        ready_base(home, settings, lambda done, total: on_progress(done, total, "reading the base model, once"))
        while True:
            try:
                with open_store() as store:
                    require_room(store, home, settings, mailbox, windows)
                    require_budget(store, home, settings, mailbox, windows, utc_now())
                    request = claim(store, home, settings, mailbox, windows, utc_now())
            except NothingToDo as nothing:
                if windows.each and isinstance(nothing, NothingToLearn):
                    windows = replace(windows, past=nothing.newest)
                    continue
                deploy_pending(home, settings)  # a promotion that a crash left undeployed
                if not done:
                    raise
                return
            carrier.carry_out(request)
            deploy_pending(home, settings)
            with open_store() as store:
                yield report_of(store, home, request.run_id)
            done += 1
            if not windows.each:
                return


def _carrier(home: Home, settings: Settings, open_store: OpenStore, on_progress: OnProgress) -> Requesting | _Trainer:
    if settings.bus.kind == "kafka":
        return Requesting(settings, open_store, on_progress)
    return _Trainer(home, settings, open_store, on_progress)


class _Trainer:
    """Carries out requests in this process, or waits while another one has the right to."""

    def __init__(self, home: Home, settings: Settings, open_store: OpenStore, on_progress: OnProgress) -> None:
        self._home = home
        self._open_store = open_store
        self._on_progress = on_progress
        self._runner = Runner(home)
        self._bus = EmbeddedBus(open_store)
        self._retraining = Retraining(home, settings, open_store, self._runner, self._bus, self._on_step)

    def __enter__(self) -> _Trainer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._runner.close()

    def require(self) -> None:
        """Raises ``RunError`` when nothing is installed here to train with."""
        require_training()

    def carry_out(self, request: RunRequest) -> None:
        """Until there is a verdict; raises what keeps the run from going on."""
        revive(self._bus, request)
        while not (self._train_here(request) or self._is_decided(request)):
            time.sleep(LOOK_SECONDS)

    def _train_here(self, request: RunRequest) -> bool:
        """Trains whatever is requested, unless another process has the right to; raises what keeps this one from it."""
        with training_lease(self._home) as mine:
            if mine:
                while self._bus.deliver():
                    pass
                if request.mailbox in self._retraining.faults:
                    raise self._retraining.faults[request.mailbox]
            return mine

    def _is_decided(self, request: RunRequest) -> bool:
        for dead in set_aside(self._bus, request):
            raise RunError(f"the run cannot go on: {dead.error}", hint="mend that and run the same command again")
        with self._open_store() as store:
            if isinstance(store, RemoteStore):
                training = store.owner_state().training
                self._on_progress(training.done, training.total, training.words)
            return decision_of(store, request) is not None

    def _on_step(self, step: Step) -> None:
        self._on_progress(step.done, step.total, step_line(step))


def report_of(store: Store, home: Home, run_id: str) -> RunReport:
    """The report of a decided run; raises ``UsageError`` for an unknown id, ``RunError`` while it has no verdict."""
    rows = store.fetch(RequestRow, "run_id = ?", [run_id])
    if not rows:
        raise no_run(run_id)
    request = RunRequest.model_validate_json(rows[0].request)
    decision = decision_of(store, request)
    if decision is None:
        raise RunError(f"run {run_id} has no verdict yet", hint="go on with it: `mailtide retrain --confirm`")
    closings = store.fetch(ClosingRow, "mailbox = ?", [request.mailbox])
    failure = last_failure(store, request)
    mails = sum(row.n_messages for row in closings if row.window_idx in request.new_windows)
    result = read_result(home.run(run_id)) if decision.verdict else None
    new = old = None
    if result is not None:
        evidence = gather(home, request, result, request.champion.adapter_id if request.champion else None)
        new, old = evidence.new, evidence.old
    return RunReport(
        run_id=run_id,
        mailbox=request.mailbox,
        windows=request.new_windows,
        mails=mails,
        adapter_id=request.adapter_id,
        parent=request.parent.adapter_id if request.parent else None,
        champion=request.champion.adapter_id if request.champion else None,
        outcome=decision.status,
        reasons=decision.reasons,
        rules=decision.verdict.rules if decision.verdict else (),
        new_chunks=result.new_chunks if result else 0,
        rehearsal_chunks=result.rehearsal_chunks if result else 0,
        steps=result.steps if result else 0,
        tokens=result.tokens if result else 0,
        seconds=sum(result.seconds.values()) if result else 0.0,
        cost=float(store.scalar("SELECT cost FROM run_results WHERE run_id = ?", [run_id]) or 0.0),
        seconds_by_step=result.seconds if result else {},
        training_seconds=result.training if result else {},
        new_before=new.before if new else None,
        new_after=new.after if new else None,
        old_before=old.before if old else None,
        old_after=old.after if old else None,
        tiers=read_manifest(home.run(run_id) / MANIFEST).tiers if result else (),
        failed_before=failure.run_id if failure else None,
        course=(*course_of(home, request, result), kept_checkpoint(home.run(run_id), result)) if result else (),
    )
