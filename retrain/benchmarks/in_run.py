"""The benchmarks of a run: its chosen checkpoint and what it challenges on the same items, and the figure for the gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import MailtideError
from pipeline.home import Home
from pipeline.runs.harms import Figure
from pipeline.runs.requests import RunRequest
from retrain.benchmarks.harness import Subject, installed, put, version
from retrain.benchmarks.items import ITEMS, Item, read_items, write_items
from retrain.benchmarks.points import by_task, loss, score
from retrain.benchmarks.tasks import Task, read_tasks
from retrain.evaluation.references import Reference
from retrain.evaluation.results import Measured, metric_of
from retrain.models.model import load_tokenizer
from retrain.progress import Observer, Progress
from retrain.study import Study

SPLIT = "benchmarks"
"""What stands for a split in entries, and in the view `metrics`: items of tasks are neither val nor test."""


@dataclass(frozen=True, slots=True)
class Benchmarked:
    """The items of both models, and the tasks that could not be measured with the reason."""

    items: tuple[Item, ...]
    tasks: tuple[Task, ...]
    absent: tuple[tuple[str, str], ...]


def run_benchmarks(
    home: Home,
    study: Study,
    base: Path,
    folder: Path,
    own: Reference,
    challenged: Reference,
    progress: Observer,
) -> Benchmarked:
    """Puts the tasks of the settings to both models and writes ``benchmarks.parquet``; scores that the challenged adapter's
    own run left are not computed again.

    A task that cannot be read or carried out is left out with its reason: nothing here ends a run.
    """
    named = study.request.settings.eval.benchmarks
    if not named:
        return Benchmarked((), (), ())
    if not installed():
        return Benchmarked((), (), ((SPLIT, "lm-eval is not installed (extra `benchmarks`)"),))
    try:
        tasks = read_tasks(named, home)
    except MailtideError as error:
        return Benchmarked((), (), ((SPLIT, str(error)),))
    known = [*read_items(folder / ITEMS), *_earlier(home, study.request)]
    items: list[Item] = []
    absent: list[tuple[str, str]] = []
    for place, task in enumerate(tasks):
        both: list[Item] = []
        try:
            for reference in (own, challenged):
                progress(
                    Progress(study.request.run_id, "benchmarks", place, len(tasks), f"{task.name} {reference.adapter_id}")
                )
                both += _known(known, task, reference) or _measured(study, base, task, reference)
        except MailtideError as error:
            absent.append((task.name, str(error)))
        else:
            items += both
    progress(Progress(study.request.run_id, "benchmarks", len(tasks), len(tasks), f"{len(items)} items"))
    write_items(folder / ITEMS, items)
    return Benchmarked(tuple(items), tuple(tasks), tuple(absent))


def _earlier(home: Home, request: RunRequest) -> list[Item]:
    return read_items(home.run(request.champion.run_id) / ITEMS) if request.champion else []


def _known(known: Sequence[Item], task: Task, reference: Reference) -> list[Item]:
    """The scores of a whole task, or none."""
    names = (reference.adapter_id, reference.checkpoint, task.sha256, version())
    found = {
        item.item: item for item in known if (item.adapter_id, item.checkpoint, item.task_sha256, item.harness) == names
    }
    return list(found.values()) if len(found) == len(task.docs) else []


def _measured(study: Study, base: Path, task: Task, reference: Reference) -> list[Item]:
    with study.serving(reference):
        return put(
            task,
            Subject(
                adapter_id=reference.adapter_id,
                checkpoint=reference.checkpoint,
                model=study.model,
                tokenizer=load_tokenizer(base),  # the harness changes its padding
                compute=study.compute,
                context=study.context,
                batch_tokens=study.request.settings.eval.batch_tokens,
            ),
        )


def results_of(found: Benchmarked, own: Reference, challenged: Reference) -> tuple[list[Measured], Measured, Figure]:
    """Entries for ``checkpoints``, the object ``benchmarks`` and the figure for the gate, of ``eval_results.json``."""
    ours, theirs = ([item for item in found.items if item.adapter_id == one.adapter_id] for one in (own, challenged))
    entries = [_entry(found, reference, items) for reference, items in ((own, ours), (challenged, theirs)) if items]
    lost = loss(ours, theirs, {task.name: task.weight for task in found.tasks})
    reasons = [{"task": task, "reason": reason} for task, reason in found.absent]
    document: Measured = {"against": challenged.adapter_id, "tasks": [], "absent": reasons}
    if lost is None:
        why = "; ".join(f"{task}: {reason}" if task != SPLIT else reason for task, reason in found.absent)
        return entries, document, Figure(SPLIT, None, reason=why or "eval.benchmarks names no task")
    document["tasks"] = [
        {
            "task": one.task,
            "metric": one.metric,
            "weight": one.weight,
            "n": one.n,
            "score": one.ours,
            "score_against": one.theirs,
            "points_lost": one.points,
            "ci_low": one.bounds[0],
            "ci_high": one.bounds[1],
        }
        for one in lost.tasks
    ]
    document |= {"points_lost": lost.points, "ci_low": lost.low, "ci_high": lost.high, "n": lost.n}
    return entries, document, Figure(SPLIT, lost.points, lost.low, lost.high, lost.n)


def _entry(found: Benchmarked, reference: Reference, items: Sequence[Item]) -> Measured:
    metrics = []
    for task, some in by_task(items).items():
        interval = score(some)
        metric = metric_of(f"{task}:{some[0].metric}", interval)
        if metric is not None and interval is not None:
            metrics.append({**metric, "stderr": interval.error if interval.bounds != (None, None) else None})
    return {
        "adapter_id": reference.adapter_id,
        "checkpoint": reference.checkpoint,
        "split": SPLIT,
        "n_items": len(items),
        "metrics": metrics,
        "absent": [{"metric": task, "reason": reason} for task, reason in found.absent],
    }
