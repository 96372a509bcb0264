"""The processes that train one run together, as accelerate finds them in what torchrun has set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from pipeline.errors import RunError

T = TypeVar("T")

PATIENCE = timedelta(hours=12)
"""How long a process waits for the others. One that died need not be waited for: the launcher ends the others with it."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process is ``rank`` of ``count``, counted from 0, and the ``local``-th of those on its machine."""

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the one process that writes."""
        return self.rank == 0

    def agreed(self, decide: Callable[[], T]) -> T:
        """What ``decide`` gives in the first process, in all of them; the others wait for it."""
        if self.count == 1:
            return decide()
        given: list[T | None] = [decide() if self.first else None]
        broadcast_object_list(given)
        (decision,) = given
        return decision  # type: ignore[return-value]  # what the first decided

    def in_turn(self, work: Callable[[], T]) -> T:
        """What ``work`` gives, done by the first process before the others do it: they find what it wrote."""
        if self.count == 1:
            return work()
        with PartialState().main_process_first():
            return work()

    def gathered(self, mine: Iterable[T]) -> list[T]:
        """What all of them give, one after another in their order, in all of them."""
        own = list(mine)
        return own if self.count == 1 else list(gather_object(own))


ALONE = Ranks()
"""A process that trains by itself."""


def join() -> Ranks:
    """Meets the other processes. Raises ``RunError`` when this machine has fewer GPUs than processes that want one."""
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
    if torch.cuda.is_available() and state.local_process_index >= torch.cuda.device_count():
        raise RunError(
            f"this machine has {torch.cuda.device_count()} GPUs, fewer than the processes that are to train on it",
            hint="set train.processes lower",
        )
    return Ranks(state.process_index, state.num_processes, state.local_process_index)


def leave() -> None:
    """Parts from the others, after which this process can end at any time."""
    PartialState().destroy_process_group()
