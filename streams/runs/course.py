"""How the training of a run went, in sentences: its attempts, an early end, memory that ran out, the checkpoint taken."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.home import Home
from pipeline.runs.attempts import read_attempts
from pipeline.runs.plan import SCHEDULE
from pipeline.runs.requests import RunRequest, RunResult
from pipeline.sampling.replay import read_schedule

RESULTS = "eval_results.json"


def course_of(home: Home, request: RunRequest, result: RunResult) -> tuple[str, ...]:
    """What happened on the way; empty where all steps of the schedule were made, once and at once."""
    folder, train = home.run(request.run_id), request.settings.train
    told = []
    attempts = read_attempts(folder)
    for one in attempts.made if attempts else ():
        kept = ", kept" if attempts and one.number == attempts.kept else ""
        before = f"{attempts.before:.3f}" if attempts else ""
        told.append(
            f"attempt {one.number}, learning rate {one.lr:g}: loss {before} -> {one.loss:.3f} at step {one.step}{kept}"
        )
    planned = read_schedule(folder / SCHEDULE).steps(train.accumulation)
    if result.steps < planned:
        told.append(
            f"stopped early after step {result.steps} of {planned}: {train.patience} checkpoints in a row were not better "
            f"than the best by more than {train.min_delta:g} (train.patience, train.min_delta)"
        )
    told += [f"memory ran out: on from step {one.after_step} in passes of {one.tokens} tokens" for one in result.passes]
    return tuple(told)


def kept_checkpoint(folder: Path, result: RunResult) -> str:
    """Which checkpoint became the adapter, and why as far as the run wrote that down."""
    try:
        reason = json.loads((folder / RESULTS).read_bytes())["selection"]["reason"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"kept {result.checkpoint}"
    return f"kept {result.checkpoint}: {reason}"
