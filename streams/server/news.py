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
from streams.daemon.board import TrainingState
from streams.documents import plain
from streams.inspecting.standing import state_of
from streams.runs.claims import undecided
from streams.runs.progress import step_of
from streams.server.context import ServerContext

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
            return Look(noted(home, self._run_id) if self._run_id else None, ())
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
    """How far the run without a verdict is: as the daemon tells, else as whoever carries it out has noted. None without
    one."""
    pending = undecided(store, mailbox)
    if pending is None:
        return None
    daemon = state_of(store)
    if daemon is not None and daemon.training.run_id == pending.run_id:
        told: dict[str, Any] = plain(daemon.training)
        return told
    return noted(home, pending.run_id)


def noted(home: Home, run_id: str) -> dict[str, Any]:
    """The newest step of a run, in the form in which a daemon tells of its own; only its id where nobody carries it out."""
    step = step_of(home, run_id)
    if step is None:
        return {"run_id": run_id, "doing": "requested"}
    told: dict[str, Any] = plain(TrainingState.of(step))
    return told


def _signature(home: Home) -> tuple[object, ...]:
    """Looked at before the store is opened."""
    files = (home.store, home.store.with_name(home.store.name + ".wal"))
    stats = [file.stat() if file.exists() else None for file in files]
    return tuple((stat.st_size, stat.st_mtime_ns) if stat else None for stat in stats)


def _event(kind: str, value: Any, number: int | None = None) -> str:
    name = "" if number is None else f"id: {number}\n"
    return f"{name}event: {kind}\ndata: {json.dumps(value, ensure_ascii=False)}\n\n"
