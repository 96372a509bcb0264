"""Runs asked for over HTTP: claimed here, carried out by the command that people type, in a process of its own.

A process, as DuckDB's lock on the store counts processes: a second thread of this one would open the same files unnoticed.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
import threading

from pipeline.config.settings import Settings
from pipeline.errors import RunError
from pipeline.home import Home
from pipeline.times import utc_now
from streams.runs.bases import ready_base
from streams.runs.budget import require_budget
from streams.runs.claims import Windows, claim, undecided
from streams.runs.lease import training_lease
from streams.runs.planning import require_room
from streams.server.context import ServerContext
from streams.server.errors import ApiError

log = logging.getLogger(__name__)

PROGRAM = """
from pipeline.lifeline import die_with_parent
die_with_parent()
from streams.cli import main
main()
"""


class Runs:
    """Starts runs of one mailbox. ``trouble`` is what the last one ended with, where it came to no verdict."""

    def __init__(self, context: ServerContext) -> None:
        self.trouble = ""
        self._context = context
        self._starting = threading.Lock()
        self._carrying: threading.Thread | None = None

    def start(self, windows: Windows) -> str:
        """Asks for a run over what waits, or takes up one that nobody carries out; returns its id. Raises ``ApiError``
        (409) while one is under way, where nothing waits, and for what ``mailtide retrain`` refuses."""
        home, settings, mailbox = self._context.home, self._context.settings, self._context.mailbox
        with self._starting:
            try:
                ready_base(home, settings, lambda done, total: None)
            except RunError as error:
                raise ApiError(409, str(error), code="run_refused") from error
            with self._context.storeroom.writing() as store:
                pending = undecided(store, mailbox)
                if pending is not None and (settings.bus.kind == "kafka" or self._under_way(home)):
                    said = f"run {pending.run_id} of {mailbox} has no verdict yet"
                    raise ApiError(409, said, code="run_under_way", retry_after=60)
                try:
                    require_room(store, home, settings, mailbox, windows)
                    require_budget(store, home, settings, mailbox, windows, utc_now())
                    request = claim(store, home, settings, mailbox, windows, utc_now())
                except RunError as error:
                    raise ApiError(409, str(error), code="run_refused") from error
            if not self._under_way(home):
                self._carry_out(home, settings, mailbox, request.run_id)
        return request.run_id

    def _under_way(self, home: Home) -> bool:
        """Whether this server carries a run out, or another process has the right to: a daemon always does, and finds what
        is asked for by itself."""
        if self._carrying is not None and self._carrying.is_alive():
            return True
        with training_lease(home) as free:
            return not free

    def _carry_out(self, home: Home, settings: Settings, mailbox: str, run_id: str) -> None:
        # The thread that starts a process must outlive it, or the process is taken for an orphan.
        self._carrying = threading.Thread(target=self._retrain, args=(home, mailbox, run_id), name="retrain", daemon=True)
        self._carrying.start()

    def _retrain(self, home: Home, mailbox: str, run_id: str) -> None:
        self.trouble = ""
        with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
            command = [sys.executable, "-c", PROGRAM, "--home", str(home.root), "retrain", mailbox, "--confirm"]
            code = subprocess.call(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said)
            said.seek(0)
            lines = said.read().splitlines()
        log.info("run %s ended with exit code %d", run_id, code)
        if code not in (0, 3):
            self.trouble = lines[-1] if lines else f"it ended with exit code {code}"
            log.warning("run %s: %s", run_id, self.trouble)
