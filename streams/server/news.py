"""What happens to runs and adapters, as server-sent events: how far the present run is, and each decision as it falls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool

from pipeline.errors import MailtideError
from pipeline.home import Home
from pipeline.store import Store
from pipeline.store.rows import JournalRow
from streams.claims import undecided
from streams.daemon.board import TrainingState
from streams.documents import plain
from streams.server.context import ServerContext
from streams.standing import state_of
from streams.telling import Figures

STEPS = "metrics.jsonl"
"""In a run's folder: a line per step (:mod:`retrain.training.metrics`, which would load torch)."""
RECENT_STEPS = 16
"""Steps that the pace is taken over."""
LOOK_SECONDS = 1.0
QUIET_SECONDS = 15.0
"""After so long without an event a comment is sent, so that whatever lies between keeps the connection."""


@dataclass(frozen=True, slots=True)
class Look:
    """``progress`` of the run without a verdict (None: there is none), and the journal after the ordinal asked for."""

    progress: dict[str, Any] | None
    journal: tuple[JournalRow, ...]


class News:
    """Looks at the store only when its files have changed, or when a daemon has it, which may be asked at any time."""

    def __init__(self, context: ServerContext, after: int) -> None:
        self._context = context
        self._after = after
        self._seen: object = None
        self._run_id: str | None = None
        self._told: dict[str, Any] | None = None

    def look(self) -> Look:
        """What is new since the last look; a store that is in use is looked at the next time."""
        home = self._context.home
        signature = _signature(home)
        if signature == self._seen and not home.owner_socket.exists():
            return Look(steps_of(home, self._run_id) if self._run_id else None, ())
        try:
            with self._context.storeroom.reading() as store:
                found = store.fetch(
                    JournalRow, "mailbox = ? AND ordinal > ?", [self._context.mailbox, self._after], "ordinal"
                )
                progress = progress_of(store, home, self._context.mailbox)
        except MailtideError:
            return Look(self._told, ())
        self._seen = signature
        self._run_id = progress["run_id"] if progress else None
        self._after = found[-1].ordinal if found else self._after
        return Look(progress, tuple(found))

    async def events(self) -> AsyncIterator[str]:
        """``decision`` for each new entry of the journal, with its ordinal as the event's id, so that a client that comes
        back is told what it missed; ``progress`` whenever that has changed, null once nothing is under way."""
        quiet = 0.0
        yield ": mailtide\n\n"
        while True:
            look = await run_in_threadpool(self.look)
            told = [_event("decision", plain(row), row.ordinal) for row in look.journal]
            if look.progress != self._told:
                self._told = look.progress
                told.append(_event("progress", look.progress))
            quiet = 0.0 if told else quiet + LOOK_SECONDS
            if quiet >= QUIET_SECONDS:
                told, quiet = [": nothing new\n\n"], 0.0
            for event in told:
                yield event
            await asyncio.sleep(LOOK_SECONDS)


def progress_of(store: Store, home: Home, mailbox: str) -> dict[str, Any] | None:
    """How far the run without a verdict is: as the daemon tells, else by the steps in its folder. None without one."""
    pending = undecided(store, mailbox)
    if pending is None:
        return None
    daemon = state_of(store)
    if daemon is not None and daemon.training.run_id == pending.run_id:
        told: dict[str, Any] = plain(daemon.training)
        return told
    return steps_of(home, pending.run_id)


def steps_of(home: Home, run_id: str) -> dict[str, Any]:
    """The newest step in the folder of a run, in the form in which a daemon tells of its own; only the run's id where it
    has not begun to train."""
    try:
        lines = (home.run(run_id) / STEPS).read_text(encoding="utf-8").split("\n")[:-1]
    except OSError:
        lines = []
    if not lines:
        return {"run_id": run_id, "doing": "requested"}
    last = json.loads(lines[-1])
    before = json.loads(lines[-RECENT_STEPS - 1]) if len(lines) > RECENT_STEPS else {"step": 0, "tokens": 0, "seconds": 0.0}
    text = f"epoch {last['epoch'] + 1}, {last['tokens']:,} tokens"
    state = TrainingState("training", run_id, "train", last["step"], last["steps"], text, _figures(before, last))
    told: dict[str, Any] = plain(state)
    return told


def _figures(before: dict[str, Any], last: dict[str, Any]) -> Figures:
    """Pace and time left from two lines of steps; the time by the share of steps, as only the run knows its tokens."""
    seconds, steps = last["seconds"] - before["seconds"], last["step"] - before["step"]
    if seconds <= 0 or steps <= 0:
        return Figures(last["loss"])
    left = (last["steps"] - last["step"]) * seconds / steps
    return Figures(last["loss"], (last["tokens"] - before["tokens"]) / seconds, left)


def _signature(home: Home) -> tuple[object, ...]:
    """Looked at before the store is opened."""
    files = (home.store, home.store.with_name(home.store.name + ".wal"))
    stats = [file.stat() if file.exists() else None for file in files]
    return tuple((stat.st_size, stat.st_mtime_ns) if stat else None for stat in stats)


def _event(kind: str, value: Any, number: int | None = None) -> str:
    name = "" if number is None else f"id: {number}\n"
    return f"{name}event: {kind}\ndata: {json.dumps(value, ensure_ascii=False)}\n\n"
