"""What is said of a run while it trains: one line for a terminal, a log or `status`, and how often a log says it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from streams.runs.runner import Step

LOG_EVERY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Figures:
    """Of a run that trains: ``loss`` in nats per token at the last step, pace, and seconds to the last step; each None
    where there is none yet."""

    loss: float | None = None
    tokens_per_second: float | None = None
    seconds_left: float | None = None

    @property
    def words(self) -> str:
        """Separated by commas; empty where nothing is known."""
        parts = []
        if self.loss is not None:
            parts.append(f"loss {self.loss:.3f}")
        if self.tokens_per_second is not None:
            parts.append(f"{self.tokens_per_second:,.0f} tokens/s")
        if self.seconds_left is not None:
            parts.append(f"{time_left(self.seconds_left)} left")
        return ", ".join(parts)


UNKNOWN = Figures()


def figures_of(step: Step) -> Figures:
    return Figures(step.loss, step.tokens_per_second, step.seconds_left)


IN_STEPS = frozenset({"base", "train"})
"""Stages that are counted in optimizer steps; of the others the share alone means something."""


def stage_line(stage: str, done: float, total: float, text: str, figures: Figures, *, share: bool = True) -> str:
    """What a run does now in one line: the stage, how far it is in steps or (with ``share``) as a share, its figures, and
    what it says, which a narrow terminal may cut off. A notice is what it says alone."""
    far = f"{100 * done / total:.0f} %" if total and share else ""
    parts = [" ".join(part for part in (stage, far, text) if part), figures.words]
    if total and stage in IN_STEPS:
        parts = [f"{stage} step {done:,.0f} of {total:,.0f}", figures.words, text]
    if text and not total:
        parts = [f"{stage}: {text}", figures.words]
    return ", ".join(part for part in parts if part)


def step_line(step: Step) -> str:
    """A step of a run in one line, for behind a bar or a share."""
    return stage_line(step.stage, step.done, step.total, step.text, figures_of(step), share=False)


def time_left(seconds: float) -> str:
    """Rounded as people do: ``50 s``, ``4 min``, ``2 h 10 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class NowAndThen:
    """Logs the steps of runs: the first of each stage, then one a minute, and every notice, which is a step without a
    total, if it says something."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._stage = ("", "")
        self._said_at = 0.0

    def hear(self, step: Step) -> None:
        """Takes note of a step, and logs it when it is time to."""
        now, stage = self._clock(), (step.run_id, step.stage)
        if not (step.total or step.text):
            return
        if stage == self._stage and now - self._said_at < LOG_EVERY_SECONDS and step.total:
            return
        self._stage, self._said_at = stage, now
        self._log.info(
            "run %s: %s", step.run_id, stage_line(step.stage, step.done, step.total, step.text, figures_of(step))
        )
