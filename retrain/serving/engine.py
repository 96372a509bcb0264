"""One thread that owns the model: lets requests in, gives every batch its next token, and loads adapters in between.

Requests of one adapter share a batch; batches of different adapters take turns, a token each, so that no answer is ever
written by two adapters. The bare base is one of them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

import torch

from retrain.serving.asked import Deliver, EngineStopped, Finish, Job, Piece, QueueFull
from retrain.serving.batch import Batch
from retrain.serving.handing import Handing
from retrain.serving.model import ServedModel
from retrain.training.exhaustion import free_memory, is_out_of_memory

log = logging.getLogger(__name__)

T = TypeVar("T")

LONGEST_STEP_SECONDS = 1.0
"""How long a step is waited for when the engine stops."""


@dataclass(frozen=True, slots=True)
class Room:
    """How much at once: answers in all batches, their tokens (prompts and longest answers), and requests that wait."""

    answers: int
    tokens: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Load:
    """What is going on: answers being written, requests that wait, tokens written since the start."""

    writing: int
    waiting: int
    tokens: int


class Engine:
    """Started by ``start``, in whose thread the model is made as well, as the number of CPU threads belongs to a thread."""

    def __init__(self, make_model: Callable[[], ServedModel], room: Room) -> None:
        self._make_model = make_model
        self._room = room
        self._model: ServedModel | None = None
        self._wake = threading.Condition()
        self._waiting: deque[tuple[Job, Deliver]] = deque()
        self._tasks: deque[tuple[Callable[[ServedModel], object], Future[object]]] = deque()
        self._batches: list[Batch] = []
        self._handing = Handing()
        self._tokens = 0
        self._stopping = False
        self._ready: Future[ServedModel] = Future()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> ServedModel:
        """Loads the model and begins. Raises what kept it from being loaded."""
        self._thread.start()
        return self._ready.result()

    def submit(self, job: Job, deliver: Deliver) -> None:
        """Puts a job in line; its pieces go to ``deliver``, together with those of other jobs that have the same one, until
        one has a finish. Raises ``QueueFull``, and ``EngineStopped`` when there is no model any more."""
        with self._wake:
            if self._stopping:
                raise EngineStopped("the model is not in memory any more", hint="try again in a few seconds")
            if job.at_once:
                self._waiting.appendleft((job, deliver))
            elif len(self._waiting) >= self._room.waiting:
                raise QueueFull(f"{len(self._waiting)} requests wait already", hint="try again in a few seconds")
            else:
                self._waiting.append((job, deliver))
            self._wake.notify()

    def between_steps(self, task: Callable[[ServedModel], T]) -> T:
        """Carries out ``task`` with the model while nothing is computed; returns or raises what it does."""
        future: Future[object] = Future()
        with self._wake:
            if self._stopping:
                raise EngineStopped("the model is not in memory any more", hint="try again in a few seconds")
            self._tasks.append((task, future))
            self._wake.notify()
        return future.result()  # type: ignore[return-value]

    @property
    def alive(self) -> bool:
        """Whether it works; False after ``stop``, and after a failure of its own."""
        return self._thread.is_alive()

    @property
    def load(self) -> Load:
        """How busy it is."""
        return Load(len(self._handing), len(self._waiting), self._tokens)

    def stop(self) -> None:
        """Ends answers where they are (``Finish.STOPPED``), lets the model go, and ends the thread: after the step that it
        is at, for which it waits ``LONGEST_STEP_SECONDS`` at most."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(LONGEST_STEP_SECONDS)

    def _run(self) -> None:
        try:
            self._model = self._make_model()
        except BaseException as error:
            self._stopping = True
            self._ready.set_exception(error)
            return
        self._ready.set_result(self._model)
        try:
            while self._awaited():
                self._carry_out_tasks(self._model)
                with torch.inference_mode(), self._model.compute.precision():
                    self._give_up_late()
                    self._turn(self._model)
        finally:
            self._close()

    def _awaited(self) -> bool:
        """Waits for something to do; False when it is to stop."""
        with self._wake:
            self._wake.wait_for(lambda: self._stopping or self._tasks or self._waiting or self._batches)
            return not self._stopping

    def _carry_out_tasks(self, model: ServedModel) -> None:
        while self._tasks:
            task, future = self._tasks.popleft()
            try:
                future.set_result(task(model))
            except Exception as error:  # it belongs to whoever gave the task
                future.set_exception(error)

    def _turn(self, model: ServedModel) -> None:
        """Every batch gets a token, new ones their first; then batches of one adapter become one."""
        running = self._batches
        admitted = self._admitted(model)
        self._batches = [*running, *admitted]
        for batch in running:
            self._advance(batch, first=False)
        for batch in admitted:
            self._advance(batch, first=True)
        self._batches = _joined([batch for batch in self._batches if batch.rows])

    def _admitted(self, model: ServedModel) -> list[Batch]:
        """New batches, one per adapter, of as many waiting jobs as there is room for, in order."""
        held = self._handing.jobs
        answers, tokens = len(held), sum(job.most_tokens for job in held)
        new: dict[str | None, list[Job]] = {}
        with self._wake:
            while self._waiting:
                job, deliver = self._waiting[0]
                full = answers >= self._room.answers or (answers and tokens + job.most_tokens > self._room.tokens)
                if full and not job.at_once:
                    break
                self._waiting.popleft()
                answers, tokens = answers + 1, tokens + job.most_tokens
                self._handing.expect(job, deliver)
                new.setdefault(job.adapter_id, []).append(job)
        return [Batch(model, jobs) for jobs in new.values()]

    def _advance(self, batch: Batch, *, first: bool) -> None:
        try:
            pieces = batch.read() if first else batch.step()
        except Exception as error:
            memory = is_out_of_memory(error)
            log.error("%d answers failed: %s", len(batch.rows), "memory ran out" if memory else type(error).__name__)
            pieces = [(row.job, row.spelling.cut(Finish.FAILED)) for row in batch.rows]
        else:
            memory = False
            self._tokens += len(pieces)
        batch.drop({job for job, piece in pieces if piece.finish is not None})
        self._handing.hand(pieces)
        if memory:
            free_memory()

    def _give_up_late(self) -> None:
        """Ends what nobody waits for any more, or what is past its time."""
        now = time.monotonic()
        ended: list[tuple[Job, Piece]] = []
        for batch in self._batches:
            gone = {row.job: row for row in batch.rows if row.job.cancelled.is_set() or row.job.deadline < now}
            ended += [(job, row.spelling.cut(Finish.LATE)) for job, row in gone.items()]
            batch.drop(set(gone))
        self._batches = [batch for batch in self._batches if batch.rows]
        with self._wake:
            late = [(job, to) for job, to in self._waiting if job.cancelled.is_set() or job.deadline < now]
            for waiting in late:
                self._waiting.remove(waiting)
        if ended:
            self._handing.hand(ended)
        for job, to in late:
            to([(job, Piece("", 0, Finish.LATE))])

    def _close(self) -> None:
        with self._wake:
            self._stopping = True
        self._handing.hand([(row.job, row.spelling.cut(Finish.STOPPED)) for batch in self._batches for row in batch.rows])
        for job, to in self._waiting:
            to([(job, Piece("", 0, Finish.STOPPED))])
        gone = EngineStopped("the model is not in memory any more", hint="try again in a few seconds")
        for _, future in self._tasks:
            future.set_exception(gone)
        self._batches.clear()
        self._waiting.clear()
        self._tasks.clear()
        self._model = None
        free_memory()


def _joined(batches: Sequence[Batch]) -> list[Batch]:
    """Batches of the same adapter as one, where the model's keys and values allow."""
    kept: list[Batch] = []
    for batch in batches:
        same = [other for other in kept if other.adapter_id == batch.adapter_id and other.joinable and batch.joinable]
        if same:
            same[0].join(batch)
        else:
            kept.append(batch)
    return kept
