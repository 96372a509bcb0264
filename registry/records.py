"""From a finished run's folder to rows: its adapter, losses, metrics, cost, and what it trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.config.settings import CostSettings
from pipeline.domain import Role
from pipeline.errors import RunError
from pipeline.home import Home
from pipeline.intervals import finite
from pipeline.runs.requests import RunRequest, RunResult
from pipeline.runs.runfiles import read_losses
from pipeline.sampling.coverage import read_coverage
from pipeline.store import Store
from pipeline.store.rows import AdapterRow, LossRow, MetricRow, Row, RunResultRow, TrainedRow
from registry.outcomes import outcome_rows


class Lenient(BaseModel):
    """What is not known here is left to those who wrote it."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Metric(Lenient):
    """One figure with its interval; windows are None where it is over all of them."""

    metric: str
    value: float | None
    n: int
    ci_low: float | None = None
    ci_high: float | None = None
    window_from: int | None = None
    window_to: int | None = None


class Measured(Lenient):
    """The figures of one adapter's checkpoint on one split."""

    checkpoint: str
    adapter_id: str
    split: str
    metrics: tuple[Metric, ...]


class Safety(Lenient):
    """How many written replies were looked at, and how many had a flag."""

    outputs: int = 0
    flagged: int = 0


class EvalResults(Lenient):
    """``eval_results.json``."""

    version: int
    safety: Safety = Safety()
    checkpoints: tuple[Measured, ...]


def read_eval_results(path: Path) -> EvalResults:
    """Raises ``RunError`` when the file is missing or has another shape."""
    try:
        return EvalResults.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise RunError(
            f"{path} cannot be read ({str(error).splitlines()[0]})",
            hint="delete it and run `mailtide retrain --confirm` again",
        ) from error


def price(result: RunResult, cost: CostSettings) -> float:
    """What the run cost, by its hours: of each GPU that trained, or of the machine."""
    gpus = 1 if result.environment.get("device", "cpu") == "cpu" else int(result.environment.get("processes", "1"))
    return (result.finished_at - result.started_at).total_seconds() / 3600 * cost.per_hour * gpus


def rows_of(store: Store, home: Home, request: RunRequest, result: RunResult, cost: CostSettings) -> list[Row]:
    """Everything that the run measured and did, as rows that the store does not have yet."""
    folder = home.run(request.run_id)
    spent = price(result, cost)
    return [
        AdapterRow(
            adapter_id=result.adapter_id,
            mailbox=request.mailbox,
            run_id=request.run_id,
            base_id=request.base.base_id,
            parent_adapter=request.parent.adapter_id if request.parent else None,
            created_at=result.finished_at,
            sha256=result.adapter_sha256,
            safety_flags=read_eval_results(folder / "eval_results.json").safety.flagged,
        ),
        RunResultRow(request.run_id, result.started_at, result.finished_at, result.steps, result.tokens, spent),
        *_metrics(folder / "eval_results.json", request.run_id),
        *_losses(store, folder / "losses.parquet", request.mailbox),
        *_trained(folder / "coverage.parquet", request, result),
        *outcome_rows(folder, request),
    ]


def _metrics(path: Path, run_id: str) -> Iterator[MetricRow]:
    """Figures as rows; one that could not be computed, or is not finite, has none."""
    for measured in read_eval_results(path).checkpoints:
        for metric in measured.metrics:
            if metric.value is not None and math.isfinite(metric.value):
                yield MetricRow(
                    run_id=run_id,
                    adapter_id=measured.adapter_id,
                    checkpoint=measured.checkpoint,
                    split=measured.split,
                    window_from=metric.window_from,
                    window_to=metric.window_to,
                    metric=metric.metric,
                    value=metric.value,
                    n=metric.n,
                    ci_low=finite(metric.ci_low),
                    ci_high=finite(metric.ci_high),
                )


def _losses(store: Store, path: Path, mailbox: str) -> Iterator[LossRow]:
    """A loss belongs to (adapter, checkpoint, chunk, evaluation version) and is stored once."""
    losses = read_losses(path)
    names = sorted({loss.adapter_id for loss in losses})
    known = set()
    if names:
        known = set(
            store.query(
                "SELECT adapter_id, checkpoint, chunk_id, eval_version FROM loss_rows"
                f" WHERE mailbox = ? AND adapter_id IN ({', '.join('?' for _ in names)})",
                [mailbox, *names],
            )
        )
    for loss in losses:
        key = (loss.adapter_id, loss.checkpoint, loss.chunk_id, loss.eval_version)
        if key not in known:
            known.add(key)
            yield LossRow(
                adapter_id=loss.adapter_id,
                checkpoint=loss.checkpoint,
                mailbox=mailbox,
                chunk_id=loss.chunk_id,
                split=loss.split,
                nll=loss.nll,
                n_tokens=loss.n_tokens,
                n_bytes=loss.n_bytes,
                eval_version=loss.eval_version,
            )


def _trained(path: Path, request: RunRequest, result: RunResult) -> Iterator[TrainedRow]:
    coverage = read_coverage(path)
    for role, column in ((Role.NEW, "run_new"), (Role.REHEARSAL, "run_rehearsal")):
        rows = coverage.filter(pc.greater(coverage[column], 0))
        for chunk_id, times in zip(rows["chunk_id"].to_pylist(), rows[column].to_pylist(), strict=True):
            yield TrainedRow(request.run_id, result.adapter_id, request.mailbox, chunk_id, role.value, times)
