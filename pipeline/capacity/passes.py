"""How much of a batch goes through the model at once, and what becomes of that when memory runs out.

A step's loss is the sum over its tokens divided by their number, however its batches are cut: smaller passes change neither
the schedule nor the size of a step, only the rounding of its gradients. So the sizes are part of a run's record, by step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pipeline.errors import RunError
from pipeline.home import write_atomic
from pipeline.strict import Strict

PASSES = "passes.json"
"""In a run's folder, once memory has run out: what it went on with."""

CPU_PASS_TOKENS = 512
"""On a CPU padding costs as much as text, and a pass of this size is as fast per token as a larger one."""


class Change(Strict):
    """From the optimizer step after ``after_step`` on, passes hold at most ``tokens``, padding included."""

    after_step: int
    tokens: int


CHANGES = TypeAdapter(tuple[Change, ...])


@dataclass(frozen=True, slots=True)
class Passes:
    """The size of passes by optimizer step: ``first`` (None: what suits the device), until the first of ``changes``."""

    first: int | None = None
    changes: tuple[Change, ...] = ()

    def at(self, step: int) -> int | None:
        """For optimizer step ``step``, counted from 1."""
        sizes = [change.tokens for change in self.changes if change.after_step < step]
        return sizes[-1] if sizes else self.first

    def smaller(self, checkpoint: int, largest: int, longest: int) -> Passes | None:
        """After memory ran out, half the size from the step after ``checkpoint`` on, where training goes on.

        ``largest`` is the size of the largest pass if nothing bounds it, ``longest`` that of the longest example. None when
        an example at a time was too much.
        """
        less = halved(min(self.at(checkpoint + 1) or largest, largest), longest)
        if less is None:
            return None
        earlier = tuple(change for change in self.changes if change.after_step < checkpoint)
        return replace(self, changes=(*earlier, Change(after_step=checkpoint, tokens=less)))


def halved(tokens: int, longest: int) -> int | None:
    """The next smaller pass, in tokens; None when ``tokens`` is no more than the ``longest`` example, which goes through
    whole: from there on smaller passes would save nothing."""
    return max(tokens // 2, longest) if tokens > longest else None


def read_changes(folder: Path) -> tuple[Change, ...]:
    """What the run in ``folder`` went on with; nothing where memory never ran out."""
    path = folder / PASSES
    if not path.is_file():
        return ()
    try:
        return CHANGES.validate_json(path.read_bytes())
    except ValidationError as error:
        raise RunError(
            f"{path} is damaged ({str(error).splitlines()[0]})", hint="remove the run's checkpoints and run again"
        ) from error


def write_changes(folder: Path, changes: Sequence[Change]) -> None:
    """Keeps them before training goes on, so that a restarted run goes on alike."""
    write_atomic(folder / PASSES, CHANGES.dump_json(tuple(changes), indent=1) + b"\n")
