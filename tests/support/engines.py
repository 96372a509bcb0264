"""Engines of a served home, and what becomes of their answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.runs.requests import BaseRef
from retrain.serving.asked import Job, Piece
from retrain.serving.model import ServedModel, serving_compute
from tests.support.served import Served

PATIENCE = 120.0


def model_of(served: Served, base: BaseRef | None = None, **changes: Any) -> Callable[[], ServedModel]:
    chosen = served.settings.model.model_copy(update=changes)
    return lambda: ServedModel(served.home, base or served.base, chosen, serving_compute(chosen, "cpu", 1))


class Answers:
    """Collects the pieces of jobs."""

    def __init__(self) -> None:
        self._pieces: dict[Job, list[Piece]] = {}
        self._changed = threading.Condition()

    def take(self, pieces: Sequence[tuple[Job, Piece]]) -> None:
        with self._changed:
            for job, piece in pieces:
                self._pieces.setdefault(job, []).append(piece)
            self._changed.notify_all()

    def until(self, job: Job, count: int | None = None) -> list[Piece]:
        """Its pieces: all of them, or at least ``count``."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._enough(job, count), PATIENCE)
            return list(self._pieces[job])

    def text(self, job: Job) -> str:
        return "".join(piece.text for piece in self.until(job))

    def _enough(self, job: Job, count: int | None) -> bool:
        said = self._pieces.get(job, [])
        return bool(said) and (said[-1].finish is not None or (count is not None and len(said) >= count))
