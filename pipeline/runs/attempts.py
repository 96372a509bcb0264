"""A run that learns too little tries again with another learning rate: what each attempt came to, and which one is kept.

``attempts.json`` in the run's folder is written when an attempt ends, and follows from request and shards alone.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from pipeline.config.settings import RetrySettings
from pipeline.errors import RunError
from pipeline.home import write_atomic
from pipeline.strict import Strict

ATTEMPTS = "attempts.json"


class Attempt(Strict):
    """One training to its end: ``loss`` at its best checkpoint, that of ``step``, in nats per token on the val chunks that
    may choose. ``number`` counts from 1."""

    number: int
    lr: float
    step: int
    loss: float


class Attempts(Strict):
    """``before`` is the loss of what the run continues, on the same chunks; ``kept`` the attempt that becomes the adapter,
    None while another is to be made."""

    before: float
    made: tuple[Attempt, ...] = ()
    kept: int | None = None

    def after(self, step: int, loss: float, lr: float, retry: RetrySettings) -> Attempts:
        """With one attempt more. The best is kept, the earliest of equals, once it is better than ``before`` by the
        threshold or the attempts are used up."""
        made = (*self.made, Attempt(number=len(self.made) + 1, lr=lr, step=step, loss=loss))
        best = min(made, key=lambda attempt: (attempt.loss, attempt.number))
        enough = self.before - best.loss >= retry.threshold or len(made) > retry.attempts
        return Attempts(before=self.before, made=made, kept=best.number if enough else None)

    def next_lr(self, lr: float, retry: RetrySettings) -> float:
        """The peak learning rate of the attempt to be made, ``lr`` being that of the first."""
        return float(lr * retry.factor ** len(self.made))


def read_attempts(folder: Path) -> Attempts | None:
    """Those of the run in ``folder``; None where none was finished."""
    path = folder / ATTEMPTS
    if not path.is_file():
        return None
    try:
        return Attempts.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise RunError(
            f"{path} is damaged ({str(error).splitlines()[0]})", hint="remove it and the run's checkpoints, and run again"
        ) from error


def write_attempts(folder: Path, attempts: Attempts) -> None:
    write_atomic(folder / ATTEMPTS, attempts.model_dump_json(indent=1).encode() + b"\n")
