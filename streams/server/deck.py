"""The adapters in memory, the names that stand for them, and who uses them.

A request takes hold of an adapter by whatever name it asked for, and keeps it to its last token; the name may stand for
another one meanwhile. An adapter is unloaded when no name stands for it and nobody holds it any more.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.config.server_settings import ServeSettings
from pipeline.errors import MailtideError, RunError
from pipeline.runs.requests import AdapterRef, BaseRef
from retrain.serving.asked import Deliver, EngineStopped, Finish, Job, Piece, QueueFull, Sampling
from streams.server.errors import ApiError

if TYPE_CHECKING:
    from retrain.serving.engine import Engine, Load
    from retrain.serving.model import ServedModel

CHAMPION, CANDIDATE = "champion", "candidate"

LOADING = "the model is being loaded"

TRIAL_PROMPT, TRIAL_TOKENS, TRIAL_SECONDS = "Subject: Re:", 4, 60.0
"""What an adapter has to answer before any caller meets it."""


@dataclass(frozen=True, slots=True)
class Held:
    """An adapter, or the bare base (``adapter_id`` None), as a request holds it. ``name`` is its own one: the id of the
    adapter or of the base."""

    name: str
    adapter_id: str | None
    model: ServedModel
    engine: Engine


@dataclass(frozen=True, slots=True)
class Standing:
    """What is served: ``aliases`` by name, the adapter's id or None for the bare base; ``adapters`` in memory, with the
    requests that use each; ``reason`` says why nothing is, or what is amiss."""

    ready: bool
    base: str | None
    aliases: dict[str, str | None]
    adapters: dict[str, int]
    device: str | None
    reason: str


class Deck:
    """Empty until ``open``. Changes (loading, unloading, opening, closing) are made one at a time."""

    def __init__(self, settings: ServeSettings, receiver: Deliver) -> None:
        self._settings = settings
        self._receiver = receiver
        self._changing = threading.RLock()
        self._state = threading.Condition()
        self._engine: Engine | None = None
        self._model: ServedModel | None = None
        self._base: BaseRef | None = None
        self._refs: dict[str, AdapterRef] = {}
        self._aliases: dict[str, str | None] = {}
        self._users: Counter[str | None] = Counter()
        self._leaving: set[str] = set()
        self._reason = LOADING
        self._retry_after = 2.0

    @property
    def base(self) -> BaseRef | None:
        """The base in memory, or that was."""
        return self._base

    @property
    def adapters(self) -> tuple[str, ...]:
        """The adapters in memory, in order of loading."""
        with self._state:
            return tuple(self._refs)

    @property
    def aliases(self) -> dict[str, str | None]:
        """What each name stands for."""
        with self._state:
            return dict(self._aliases)

    @property
    def broken(self) -> bool:
        """Whether the engine has ended by itself, and must be opened anew."""
        return self._engine is not None and not self._engine.alive

    @property
    def set_aside(self) -> bool:
        """Whether the model has left memory for a while; what was loaded comes back with it."""
        return self._base is not None and self._engine is None

    @property
    def load_now(self) -> Load | None:
        """How busy the engine is; None without one."""
        engine = self._engine
        return engine.load if engine is not None else None

    def standing(self) -> Standing:
        """For readiness checks and people."""
        with self._state:
            return Standing(
                ready=self._ready,
                base=self._base.base_id if self._base else None,
                aliases=dict(self._aliases),
                adapters={name: self._users[name] for name in self._refs},
                device=str(self._model.compute.device) if self._model else None,
                reason=self._reason,
            )

    def note(self, reason: str, *, retry_after: float = 5.0) -> None:
        """Says why nothing is served, or what is amiss beside it ("" for nothing, once something is served)."""
        with self._state:
            if reason or self._engine is not None:
                self._reason, self._retry_after = reason, retry_after

    def open(self, base: BaseRef, make_engine: Callable[[], Engine]) -> None:
        """Loads the base, and the adapters that were in memory before ``close``. Raises ``RunError``."""
        with self._changing:
            engine = make_engine()
            model = engine.start()
            try:
                for ref in self._refs.values():
                    engine.between_steps(lambda model, ref=ref: model.load(ref))  # type: ignore[misc]
            except MailtideError:
                engine.stop()
                raise
            with self._state:
                self._engine, self._model, self._base = engine, model, base
                if self._ready:
                    self._reason = ""

    def close(self, reason: str, *, wait: float, retry_after: float = 5.0) -> None:
        """Lets nobody in any more, waits for running answers, ends what is left after ``wait`` seconds, and gives the
        memory back. What was loaded is remembered for ``open``."""
        with self._state:
            engine, self._engine, self._model = self._engine, None, None
            self._reason, self._retry_after = reason, retry_after
            self._state.wait_for(lambda: not self._users.total(), wait)
        if engine is not None:
            engine.stop()

    def empty(self, reason: str, *, wait: float) -> None:
        """Closes, and forgets what was loaded: what is opened next is another base."""
        with self._changing:
            self.close(reason, wait=wait)
            with self._state:
                self._base = None
                self._refs.clear()
                self._aliases.clear()

    @contextmanager
    def hold(self, name: str) -> Iterator[Held]:
        """The adapter that ``name`` stands for now, for as long as the block lasts. Raises ``ApiError``: 404 for a name
        that nothing is served under, 503 while nothing is served at all."""
        with self._state:
            if not self._ready or self._engine is None or self._model is None or self._base is None:
                raise ApiError(503, self._reason, code="not_ready", retry_after=self._retry_after)
            if name in self._aliases:
                adapter_id = self._aliases[name]
            elif name == self._base.base_id:
                adapter_id = None
            elif name in self._refs and name not in self._leaving:
                adapter_id = name
            else:
                served = ", ".join([*self._aliases, self._base.base_id, *self._refs])
                raise ApiError(
                    404, f"there is no such model here; served are {served}", param="model", code="model_not_found"
                )
            held = Held(adapter_id or self._base.base_id, adapter_id, self._model, self._engine)
            self._users[adapter_id] += 1
        try:
            yield held
        finally:
            self._let_go(adapter_id)

    def write(self, held: Held, prompt: Sequence[int], sampling: Sampling, seconds: float, *, streamed: bool = True) -> Job:
        """Has an answer written; its pieces (one, unless ``streamed``) go to the receiver. The adapter is held until the
        last one. Raises ``ApiError`` when too many wait."""
        job = Job(held.adapter_id, tuple(prompt), sampling, time.monotonic() + seconds, streamed)
        with self._state:
            self._users[held.adapter_id] += 1
        try:
            held.engine.submit(job, self._deliver)
        except (QueueFull, EngineStopped) as error:
            self._let_go(held.adapter_id)
            raise ApiError(503, str(error), code="overloaded", retry_after=2) from error
        return job

    def load(self, ref: AdapterRef, *, make_room: bool = False) -> float:
        """Loads an adapter and tries it out; returns the seconds. With ``make_room``, one that no name stands for leaves
        where there are as many as may be. Raises ``ApiError``: 409 without room, 422 for one that does not fit or cannot
        answer."""
        begun = time.monotonic()
        with self._changing:
            with self._state:
                engine, model = self._engine, self._model
            if engine is None or model is None:
                raise ApiError(503, self._reason, code="not_ready", retry_after=self._retry_after)
            if ref.adapter_id in self._leaving:
                raise ApiError(409, f"adapter {ref.adapter_id} is being unloaded", code="in_use", retry_after=2)
            if ref.adapter_id in self._refs:
                return 0.0
            if len(self._refs) >= self._settings.adapters:
                self._make_room(make_room)
            try:
                folder = model.checked(ref)
                engine.between_steps(lambda model: model.attach(ref, folder))
                self._try_out(engine, model, ref.adapter_id)
            except RunError as error:
                engine.between_steps(lambda model: model.unload(ref.adapter_id))
                raise ApiError(422, str(error), param="adapter_id", code="adapter_unfit") from error
            except EngineStopped as error:
                raise ApiError(503, str(error), code="not_ready", retry_after=5) from error
            with self._state:
                self._refs[ref.adapter_id] = ref
        return time.monotonic() - begun

    def point(self, alias: str, adapter_id: str | None) -> None:
        """Lets a name stand for an adapter in memory, or for the bare base, from the next request on. Raises ``ApiError``
        (409) for one that is not."""
        with self._state:
            if adapter_id is not None and (adapter_id not in self._refs or adapter_id in self._leaving):
                raise ApiError(409, f"adapter {adapter_id} is not loaded", param="adapter_id", code="not_loaded")
            self._aliases[alias] = adapter_id

    def unload(self, adapter_id: str) -> float:
        """Waits until nobody uses an adapter and gives its memory back; returns the seconds. Raises ``ApiError``: 409 while
        a name stands for it, or when it is still in use after the longest time of a request."""
        begun = time.monotonic()
        with self._state:
            if adapter_id not in self._refs:
                return 0.0
            names = [alias for alias, stands_for in self._aliases.items() if stands_for == adapter_id]
            if names:
                raise ApiError(409, f"adapter {adapter_id} is served as {', '.join(names)}", code="in_use")
            self._leaving.add(adapter_id)
            drained = self._state.wait_for(lambda: not self._users[adapter_id], self._settings.seconds + 5)
            if not drained:
                self._leaving.discard(adapter_id)
                raise ApiError(409, f"adapter {adapter_id} is still in use", code="in_use", retry_after=5)
        with self._changing:
            with self._state:
                self._refs.pop(adapter_id, None)
                self._leaving.discard(adapter_id)
                engine = self._engine
            if engine is not None:
                with suppress(EngineStopped):
                    engine.between_steps(lambda model: model.unload(adapter_id))
        return time.monotonic() - begun

    @property
    def _ready(self) -> bool:
        """Not before it is known who the champion is: until then that name would stand for the wrong model."""
        return self._engine is not None and CHAMPION in self._aliases

    def _make_room(self, allowed: bool) -> None:
        with self._state:
            spare = [name for name in self._refs if name not in self._aliases.values() and not self._users[name]]
        if not allowed or not spare:
            most = self._settings.adapters
            raise ApiError(409, f"{most} adapters are in memory (serve.adapters); unload one first", code="no_room")
        self.unload(spare[0])

    def _try_out(self, engine: Engine, model: ServedModel, adapter_id: str) -> None:
        """Raises ``RunError`` unless the adapter answers, beside whatever is being written."""
        done = threading.Event()
        last: list[Piece] = []

        def deliver(pieces: Sequence[tuple[Job, Piece]]) -> None:
            last[:] = [piece for _, piece in pieces]
            if last[-1].finish is not None:
                done.set()

        sampling = Sampling(TRIAL_TOKENS, temperature=0.0)
        deadline = time.monotonic() + TRIAL_SECONDS
        engine.submit(Job(adapter_id, model.encode(TRIAL_PROMPT), sampling, deadline, at_once=True), deliver)
        done.wait(TRIAL_SECONDS + 10)
        if not last or last[-1].finish in (None, Finish.FAILED, Finish.LATE):
            raise RunError(f"adapter {adapter_id} gives no answer", hint="see the server's log, and train it anew")

    def _deliver(self, pieces: Sequence[tuple[Job, Piece]]) -> None:
        self._receiver(pieces)
        for job, piece in pieces:
            if piece.finish is not None:
                self._let_go(job.adapter_id)

    def _let_go(self, adapter_id: str | None) -> None:
        with self._state:
            self._users[adapter_id] -= 1
            self._state.notify_all()
