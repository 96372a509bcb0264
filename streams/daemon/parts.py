"""What the daemon is made of: parts that run side by side, all until the same end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

from pipeline.errors import MailtideError
from streams.runs.faults import tells_of_full_disk

log = logging.getLogger(__name__)

STOP_SECONDS = 6.0
"""How long parts are waited for when the daemon stops; what takes longer is left, and redone after the next start."""


@dataclass(frozen=True, slots=True)
class Part:
    """Something that runs in a thread of its own. ``run`` returns when the daemon's stop is set, ``stop`` wakes it from
    what takes long; ``idle`` says whether it has nothing to do, ``trouble`` what keeps it from its work."""

    name: str
    run: Callable[[], None]
    stop: Callable[[], None] = lambda: None
    idle: Callable[[], bool] = lambda: True
    trouble: Callable[[], MailtideError | None] = lambda: None


class Running:
    """The parts, in their threads, within ``with``. The first that fails stops them all, and is raised at the end."""

    def __init__(self, parts: Sequence[Part], stop: threading.Event) -> None:
        self.failure: BaseException | None = None
        self._stop = stop
        self._parts = parts
        self._threads = [threading.Thread(target=self._run, args=(part,), name=part.name, daemon=True) for part in parts]

    def __enter__(self) -> Running:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        for part in self._parts:
            part.stop()
        for thread in self._threads:
            thread.join(STOP_SECONDS / len(self._threads))

    def _run(self, part: Part) -> None:
        try:
            part.run()
        except BaseException as error:
            # What fails because everything is ending is no failure.
            if self.failure is None and not self._stop.is_set():
                if not isinstance(error, MailtideError) and not tells_of_full_disk(str(error)):
                    log.error("%s failed", part.name, exc_info=error)
                self.failure = error
            self._stop.set()
