"""Where the time of training goes, step by step.

Passes that go side by side on a CPU are timed each by itself, and share out what the batch took by that. A GPU works on
long after it was told to: its moments are noted among its work, and read when all of that is done. ``data`` is the time in
which nothing was computed because the next batch was not ready yet.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import torch

Part = Literal["data", "forward", "backward", "optimizer", "measuring", "checkpoints"]
Moment = Any
"""A reading of ``time.perf_counter``, or an event of a CUDA stream."""
PassTimes = tuple[Moment, Moment, Moment]
"""Of one pass: before it goes forward, before it goes backward, and at its end."""

R = TypeVar("R")


class Clock:
    """Adds up seconds by what they were spent on."""

    def __init__(self, *, on_gpu: bool = False) -> None:
        self.seconds: dict[Part, float] = {}
        self._on_gpu = on_gpu

    def now(self) -> Moment:
        """This moment of the device's work."""
        if not self._on_gpu:
            return time.perf_counter()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def add(self, part: Part, seconds: float) -> None:
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds

    def passes(self, times: Sequence[PassTimes], seconds: float) -> None:
        """The passes of a batch that took ``seconds`` in all. The device must be done with them."""
        parts: tuple[Part, ...] = ("forward", "backward")
        spent = [sum(self._between(each[place], each[place + 1]) for each in times) for place in range(len(parts))]
        whole = sum(spent)
        for part, some in zip(parts, spent, strict=True):
            if whole:
                self.add(part, some / whole * seconds)

    def timed(self, part: Part, work: Callable[[], R]) -> R:
        """What ``work`` returns, when the device is done with it."""
        started = time.perf_counter()
        found = work()
        self.until_now(part, started)
        return found

    def until_now(self, part: Part, started: float) -> None:
        """Since ``started``, a reading of ``time.perf_counter``."""
        if self._on_gpu:
            torch.cuda.synchronize()
        self.add(part, time.perf_counter() - started)

    def _between(self, first: Moment, last: Moment) -> float:
        return float(first.elapsed_time(last) / 1000 if self._on_gpu else last - first)
