"""Waits until something changes in a folder: told by the operating system (watchfiles), or by looking now and then.

Not every file system tells: what another machine writes into a network folder comes as no event, and the system's watches
can run out. So a wait never lasts longer than ``poll`` seconds, whatever is told.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from watchfiles._rust_notify import RustNotify

log = logging.getLogger(__name__)

STEP_MS = 100
"""How often a wait looks at ``stop``; news are gathered until none came for this long."""
GATHER_MS = 500

ADDED, MODIFIED, DELETED = 1, 2, 3
"""watchfiles' kinds of change. A file that is renamed is deleted under one name and added under the other."""

Matters = Callable[[int, Path], bool]
"""Whether a kind of change of a path is worth waking up for."""


class Watch:
    """Watches folders, not what lies deeper. It begins with the first ``wait``, and again when a folder was replaced."""

    def __init__(self, folders: Sequence[Path], poll: float, matters: Matters) -> None:
        self._folders = tuple(folders)
        self._poll = poll
        self._matters = matters
        self._notify: RustNotify | None = None
        self._watched: tuple[tuple[int, int], ...] = ()
        self._complained = False

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Returns soon after a change that matters since the last wait, when ``stop`` is set, or after ``seconds`` or
        ``poll``, whichever is less. The first wait returns at once: nothing tells what came before it."""
        deadline = time.monotonic() + min(seconds, self._poll)
        if self._begin():
            return
        while not stop.is_set() and (left := deadline - time.monotonic()) > 0:
            if self._notify is None:
                stop.wait(left)
            elif self._told(self._notify, left, stop):
                return

    def close(self) -> None:
        """Gives the watches back; the next ``wait`` begins anew."""
        if self._notify is not None:
            self._notify.close()
            self._notify = None
        self._watched = ()

    def _begin(self) -> bool:
        """Whether watching began only now. Without the folders, or without watches left, it does not."""
        try:
            found = tuple((each.st_dev, each.st_ino) for each in map(os.stat, self._folders))
        except OSError:
            self.close()
            return False
        if self._notify is not None and found == self._watched:
            return False
        self.close()
        from watchfiles._rust_notify import RustNotify

        try:
            self._notify = RustNotify([str(folder) for folder in self._folders], False, False, 0, False, True)
        except (OSError, RuntimeError) as error:
            self._complain(error)
            return False
        self._watched = found
        return True

    def _told(self, notify: RustNotify, left: float, stop: threading.Event) -> bool:
        try:
            told = notify.watch(GATHER_MS, STEP_MS, max(1, int(left * 1000)), stop)
        except (OSError, RuntimeError) as error:
            self._complain(error)
            self.close()
            return False
        if told == "signal":
            # A handler raised inside the wait, where the exception is lost: only Ctrl-C does that.
            raise KeyboardInterrupt
        return not isinstance(told, str) and any(self._matters(kind, Path(path)) for kind, path in told)

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            names = ", ".join(str(folder) for folder in self._folders)
            log.warning("%s cannot be watched (%s): looking every %g s instead", names, error, self._poll)
            self._complained = True
