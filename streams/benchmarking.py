"""`mailtide benchmark`: which model is asked what, from settings and store, and what it scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pipeline.config.settings import Settings
from pipeline.errors import RunError, UsageError
from pipeline.home import Home
from pipeline.installing import install_hint
from pipeline.intervals import Interval
from pipeline.runs.requests import AdapterRef, BaseRef
from pipeline.store import Store
from registry.decide import journal
from registry.named import adapter_of, reference
from retrain.benchmarks.items import Item
from retrain.benchmarks.points import Loss, by_task, loss, score
from retrain.benchmarks.tasks import Task, is_path, known_tasks, read_tasks
from streams.runs.bases import base_to_ask
from streams.runs.runner import require_training

BASE = "base"
"""What stands for the bare base where an adapter may be named."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The tasks, and the models that are asked: one, or two to be compared (None being the bare base)."""

    base: BaseRef
    adapters: tuple[AdapterRef | None, ...]
    tasks: tuple[Task, ...]


@dataclass(frozen=True, slots=True)
class Scored:
    """One model's score of one task with 95 % bounds and standard error (None where unknown)."""

    adapter_id: str
    task: str
    metric: str
    n: int
    value: float
    stderr: float | None
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """``lost`` are the points that the first model loses against the second; None where only one was asked."""

    scores: tuple[Scored, ...]
    lost: Loss | None


def what_to_ask(
    store: Store,
    home: Home,
    settings: Settings,
    mailbox: str,
    adapter_id: str | None,
    against: str | None,
    tasks: Sequence[str],
) -> Asked:
    """The adapter named, else the champion (the bare base before there is one); the tasks named (paths as a shell means
    them), else those of the settings, else all that come with mailtide.

    Raises ``RunError`` when packages are missing, ``UsageError`` for an unknown adapter or task, ``NothingToDo`` while
    there is no model.
    """
    _require_packages()
    here = [str(Path(name).absolute()) if is_path(name) else name for name in tasks]
    read = read_tasks(here or settings.eval.benchmarks or known_tasks(), home)
    named = [adapter_id or journal(store).champion(mailbox) or BASE, *([against] if against else [])]
    rows = [None if name == BASE else adapter_of(store, mailbox, name) for name in named]
    adapters = tuple(None if row is None else reference(home, row) for row in rows)
    base = base_to_ask(store, home, settings, mailbox, next(filter(None, adapters), None))
    for row in filter(None, rows):
        if row.base_id != base.base_id:
            raise UsageError(
                f"{row.adapter_id} stands on base {row.base_id}, and {base.base_id} is asked",
                hint="compare adapters of one base",
            )
    return Asked(base, adapters, tuple(read))


def ask(home: Home, settings: Settings, asked: Asked, on_task: Callable[[str, str], None]) -> Report:
    """Loads the model and puts the tasks to it; the store should be closed by now, as this may take a while."""
    from retrain.benchmarks.byhand import measure

    tasks, eval_settings = asked.tasks, settings.eval
    measured = measure(home, asked.base, asked.adapters, settings.model, tasks, eval_settings.batch_tokens, on_task)
    scores = [row for items in measured for some in by_task(items).values() if (row := _scored(some)) is not None]
    weights = {task.name: task.weight for task in tasks}
    return Report(tuple(scores), loss(measured[0], measured[1], weights) if len(measured) > 1 else None)


def _scored(items: Sequence[Item]) -> Scored | None:
    found: Interval | None = score(items)
    if found is None:
        return None
    first, (low, high) = items[0], found.bounds
    stderr = None if low is None else found.error
    return Scored(first.adapter_id, first.task, first.metric, found.n, found.value, stderr, low, high)


def installed() -> bool:
    """Whether the extra `benchmarks` is here; nothing is imported to find out."""
    return find_spec("lm_eval") is not None


def _require_packages() -> None:
    require_training()
    if not installed():
        raise RunError("benchmarks need the package lm-eval", hint=install_hint("benchmarks"))
