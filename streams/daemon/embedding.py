"""The daemon's idle time: mail that has no vector yet gets one, in a process of the lowest priority beside this one.

Nothing is looked for while nothing happens: the part sleeps until mail is taken or training ends. Loading the model takes
seconds, so it begins when a few mails wait, or one has waited for an hour, and ends when none do. Mail that flows holds up
the next batch; a run ends the process at once, as it may want all of memory.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from pipeline.config.settings import Settings
from pipeline.errors import MailtideError
from pipeline.home import Home
from registry.indexes import documents, lag, vectors_folder
from registry.named import mailboxes
from retrain.search.vector_file import read_note
from streams.daemon.board import Board, EmbeddingState
from streams.daemon.parts import Part
from streams.owning.held import HeldStore

log = logging.getLogger(__name__)

BATCH, LARGEST = 128, 2048
"""Mails of a batch: at least, and at most. In between a twentieth of those embedded, as each batch writes them all."""

BUSY_SECONDS = 30.0
"""How long to leave vectors alone that another process is writing."""

WAY_ON = "set index.model to minilm, which comes with the extra 'search', or index.engine to bm25; mail and training go on"


@dataclass(frozen=True, slots=True)
class Patience:
    """When to begin: with so many mails, or once one has waited for so many seconds; and ``quiet`` seconds after the last
    mail came."""

    mails: int = 16
    seconds: float = 3600.0
    quiet: float = 2.0


class Stuck(MailtideError):
    """The embedding process cannot work: its model is missing, or it died."""


class Embedding:
    """One thread, and a process while there is work."""

    def __init__(
        self,
        home: Home,
        settings: Settings,
        held: HeldStore,
        board: Board,
        stop: threading.Event,
        patience: Patience | None = None,
        module: str = "registry.embedding",
    ) -> None:
        """``module`` is what the process runs."""
        self._home = home
        self._settings = settings.index
        self._held = held
        self._board = board
        self._stop = stop
        self._patience = patience or Patience()
        self._module = module
        self._news = held.listener()
        board.tell(self._heard)
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._model = ""
        self._seen, self._quiet_at = 0, 0.0
        self._waiting_since: float | None = None
        self._displaced = False
        """Whether a run has ended the process."""

    def part(self) -> Part:
        """It is never waited for: what is not embedded today is tomorrow."""
        return Part("index", self.run, self.stop)

    def run(self) -> None:
        """Until the stop is set. What keeps it from its work is said once and kept on the board, and ends it alone."""
        self._tell("idle")
        while not self._stop.is_set():
            # Cleared before looking, so that what happens meanwhile is looked at next time.
            self._news.clear()
            try:
                pause = self._go_on()
            except MailtideError as error:
                if not self._stop.is_set():
                    log.warning("new mail is not embedded: %s", error)
                    self._tell("stuck", trouble=str(error))
                return
            finally:
                if self._stop.is_set():
                    self._end()
            if pause is None or pause > 0:
                self._news.wait(pause)

    def stop(self) -> None:
        """Ends the work at once, from another thread: a batch under way is done again after the next start."""
        self._kill()
        self._news.set()

    def _heard(self) -> None:
        if self._trains():
            self._displaced = True
            self._kill()
        self._news.set()

    def _trains(self) -> bool:
        return self._board.state.training.doing == "training"

    def _go_on(self) -> float | None:
        """Does at most one batch; returns for how long there is nothing to do: None until something happens."""
        if self._trains():
            self._end()
            self._tell("waiting")
            return None
        quiet = self._quiet_for()
        if quiet < self._patience.quiet:
            self._tell("waiting")
            return self._patience.quiet - quiet
        behind = self._behind()
        total = sum(behind.values())
        if not total:
            self._end()
            self._waiting_since = None
            self._tell("idle", behind=0)
            return None
        if self._process is None:
            now = time.monotonic()
            self._waiting_since = self._waiting_since or now
            left = self._waiting_since + self._patience.seconds - now
            if total < self._patience.mails and left > 0:
                self._tell("waiting", behind=total)
                return left
            self._tell("embedding", behind=total)
            self._start()
        self._tell("embedding", behind=total)
        mailbox = max(behind, key=lambda name: behind[name])
        return self._batch(mailbox)

    def _quiet_for(self) -> float:
        """Seconds since new mail was last seen here."""
        seen, now = sum(feed.new for feed in self._board.state.feeds), time.monotonic()
        if seen != self._seen:
            self._seen, self._quiet_at = seen, now
        return now - self._quiet_at

    def _behind(self) -> dict[str, int]:
        """Mails without a vector, by mailbox; with the engine `auto` only where vectors were asked for before."""
        found = {}
        with self._held.reading() as store:
            for mailbox in mailboxes(store):
                if self._settings.engine != "auto" or read_note(vectors_folder(self._home, mailbox)) is not None:
                    found[mailbox] = lag(store, mailbox, self._newest(mailbox))
        return {mailbox: count for mailbox, count in found.items() if count}

    def _newest(self, mailbox: str) -> int:
        note = read_note(vectors_folder(self._home, mailbox))
        if note is None:
            return -1
        return -1 if self._model and note.model != self._model else note.newest

    def _batch(self, mailbox: str) -> float:
        note = read_note(vectors_folder(self._home, mailbox))
        size = min(LARGEST, max(BATCH, (note.documents if note else 0) // 20))
        after = self._newest(mailbox)
        while True:
            with self._held.reading() as store:
                some = list(islice(documents(store, mailbox, after), size))
            if not some:
                return 0.0
            answer = self._ask({"mailbox": mailbox, "after": after, "documents": some})
            if answer.get("busy"):
                return BUSY_SECONDS
            read, newest = int(answer["read"]), int(answer["newest"])
            if newest == some[-1][1] or newest == after:
                state = self._board.state.embedding
                self._board.embedding_is(replace(state, embedded=state.embedded + read))
                return 0.0
            after = newest  # the vectors end elsewhere: they are damaged, or another model's

    def _ask(self, job: dict[str, Any]) -> dict[str, Any]:
        """Raises ``Stuck`` when the process is gone, unless training or the end of the daemon is why."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise Stuck("the embedding process was ended")
        try:
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except (OSError, ValueError):
            line = ""
        if not line:
            code = process.wait()
            self._end()
            if self._displaced:
                return {"busy": True}
            raise Stuck(f"the embedding process ended (code {code})", hint="it is tried again when the daemon starts")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _start(self) -> None:
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}  # GPU and cores are for training
        options = ["--home", str(self._home.root), "--model", self._settings.model]
        with self._lock:
            if self._stop.is_set():
                raise Stuck("the daemon ends")
            self._displaced = False
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module, *options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env=environment,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line and self._displaced:
            return
        hello = json.loads(line) if line else {"error": "the embedding process did not start"}
        if "error" in hello:
            self._end()
            raise Stuck(str(hello["error"]), hint=WAY_ON)
        self._model = str(hello["model"])
        self._waiting_since = None

    def _kill(self) -> None:
        with self._lock:
            if self._process is not None:
                self._process.kill()

    def _end(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _tell(self, doing: str, *, behind: int | None = None, trouble: str = "") -> None:
        state = self._board.state.embedding
        told = EmbeddingState(doing, state.behind if behind is None else behind, state.embedded, trouble)
        if told != state:
            self._board.embedding_is(told)


def embedding_parts(home: Home, settings: Settings, held: HeldStore, board: Board, stop: threading.Event) -> list[Part]:
    """The part, where the settings want it and their engine searches by vectors."""
    if not settings.index.embed_when_idle or settings.index.engine == "bm25":
        return []
    return [Embedding(home, settings, held, board, stop).part()]
