"""How each part of the daemon is doing: written by its threads, read by the terminal and by `mailtide status`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from streams.runs.telling import UNKNOWN, Figures, figures_of, stage_line

if TYPE_CHECKING:
    from streams.owning.batch import Taken
    from streams.runs.runner import Step


@dataclass(frozen=True, slots=True)
class FeedState:
    """One feed. ``doing`` is starting, reading, waiting or away; ``trouble`` says why it is away."""

    mailbox: str
    feed: str
    source: str
    doing: str = "starting"
    read: int = 0
    new: int = 0
    last_mail: datetime | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class TrainingState:
    """The training. ``doing`` is idle, training, waiting (for power) or stuck; ``done`` of ``total`` within ``stage``, and
    the figures of a run that trains."""

    doing: str = "idle"
    run_id: str = ""
    stage: str = ""
    done: float = 0.0
    total: float = 0.0
    text: str = ""
    figures: Figures = UNKNOWN

    @classmethod
    def of(cls, step: Step) -> TrainingState:
        """A run that is under way."""
        return cls("training", step.run_id, step.stage, step.done, step.total, step.text, figures_of(step))

    @property
    def words(self) -> str:
        """What is being done, for behind a bar or a share."""
        return stage_line(self.stage, self.done, self.total, self.text, self.figures, share=False)


@dataclass(frozen=True, slots=True)
class EmbeddingState:
    """The embedding of new mail. ``doing`` is off (by setting), idle, embedding, waiting (for training, mail or others) or
    stuck (as ``trouble`` says); ``behind`` are the mails without a vector when last looked, ``embedded`` those since the
    start."""

    doing: str = "off"
    behind: int = 0
    embedded: int = 0
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class DaemonState:
    """All of it. ``closed`` counts windows closed and ``runs`` verdicts since the start."""

    pid: int
    started_at: datetime
    roles: tuple[str, ...]
    feeds: tuple[FeedState, ...]
    training: TrainingState
    closed: int
    runs: int
    embedding: EmbeddingState = EmbeddingState()


class Board:
    """The present state, always whole: each change replaces one part of it."""

    def __init__(self, pid: int, started_at: datetime, roles: tuple[str, ...]) -> None:
        self._lock = threading.Lock()
        self._hearers: list[Callable[[], None]] = []
        self._state = DaemonState(pid, started_at, roles, (), TrainingState(), 0, 0)

    @property
    def state(self) -> DaemonState:
        return self._state

    def tell(self, hearer: Callable[[], None]) -> None:
        """Calls ``hearer`` whenever new mail was taken, and when training begins or ends, in the thread that says so."""
        self._hearers.append(hearer)

    def add_feed(self, feed: FeedState) -> None:
        with self._lock:
            self._state = replace(self._state, feeds=(*self._state.feeds, feed))

    def feed_is(self, feed: str, doing: str, trouble: str = "") -> None:
        self._feed(feed, doing=doing, trouble=trouble)

    def taken(self, feed: str, taken: Taken, at: datetime) -> None:
        """Counts what a feed brought."""
        now = next(one for one in self._state.feeds if one.feed == feed)
        self._feed(feed, read=now.read + taken.read, new=now.new + taken.new, last_mail=at if taken.new else now.last_mail)
        self.closed(len(taken.closed))
        if taken.new:
            self._call_hearers()

    def closed(self, count: int) -> None:
        with self._lock:
            self._state = replace(self._state, closed=self._state.closed + count)

    def training_is(self, training: TrainingState) -> None:
        with self._lock:
            before, self._state = self._state.training.doing, replace(self._state, training=training)
        if training.doing != before:
            self._call_hearers()

    def embedding_is(self, embedding: EmbeddingState) -> None:
        with self._lock:
            self._state = replace(self._state, embedding=embedding)

    def decided(self) -> None:
        with self._lock:
            self._state = replace(self._state, runs=self._state.runs + 1)

    def _call_hearers(self) -> None:
        for hearer in self._hearers:
            hearer()

    def _feed(self, feed: str, **changes: object) -> None:
        with self._lock:
            feeds = tuple(
                replace(one, **changes) if one.feed == feed else one  # type: ignore[arg-type]
                for one in self._state.feeds
            )
            self._state = replace(self._state, feeds=feeds)
