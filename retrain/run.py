"""One retraining pass, from the request in a run's folder to its result.

Steps, each leaving its artefact last and whole, so that a restarted run skips what is done: manifest and schedule, the
base, training with its checkpoints, losses and figures, the choice of a checkpoint, coverage, the adapter's folder, and
``result.json``, whose presence means that all else is there. The store is never opened.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.capacity.content import content_of
from pipeline.capacity.passes import read_changes
from pipeline.chunking.archive import write_training_set
from pipeline.domain import Role
from pipeline.home import Home, fsync_dir, private_dir, sha256_folder, write_atomic
from pipeline.runs.attempts import Attempt, read_attempts
from pipeline.runs.plan import COVERAGE, EXCLUSIONS, Prepared, parent_coverage, prepare_run
from pipeline.runs.requests import RESULT, RunRequest, RunResult, read_request, read_result
from pipeline.runs.runfiles import read_exclusions
from pipeline.sampling.coverage import coverage_after, write_coverage
from pipeline.times import utc_now
from retrain.evaluation.measure import measure
from retrain.models.adapters import CONFIG, WEIGHTS
from retrain.models.base import find_base
from retrain.models.fitness import BASE, VOCABULARY
from retrain.models.liger import version
from retrain.models.model import Compute, choose_compute
from retrain.processes.launch import train_together
from retrain.progress import Observer, Progress
from retrain.study import CHECKPOINTS, Study, open_study
from retrain.training import checkpoints
from retrain.training.checkpoints import Checkpoint
from retrain.training.lost_device import require_same_device
from retrain.training.metrics import METRICS, StepRecord, read_metrics
from retrain.training.pace import Pacing
from retrain.training.retries import train_until_better


class Stopwatch:
    """Seconds per stage, of this process: what a restarted run finds done costs nothing again."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - started, 3)


def execute(home: Home, run_id: str, progress: Observer) -> RunResult:
    """Carries out the run, or what is left of it, and returns its result.

    Killed at any point and started again, it ends with the same bytes (those of times and durations apart). Raises
    ``MailtideError`` when it cannot start or go on.
    """
    folder = home.run(run_id)
    if (folder / RESULT).is_file():
        return read_result(folder)
    request = read_request(folder)
    started_at = utc_now()
    watch = Stopwatch()
    with watch.stage("data"):
        prepared = prepare_run(home, request, folder)
        exclusions = read_exclusions(folder / EXCLUSIONS, request.exclusions_sha256)
        if request.settings.train.keep_sets:
            write_training_set(home, request, set(prepared.schedule.table["chunk_id"].to_pylist()))
        counts = f"{prepared.schedule.n_batches} batches, {100 * prepared.schedule.share:.0f} % rehearsal"
        progress(Progress(run_id, "data", 1, 1, counts))
    compute = choose_compute(request.settings.model, request.settings.train.threads)
    for damaged in checkpoints.drop_damaged(folder / CHECKPOINTS):
        text = f"{damaged.name} or one before it was changed on the disk; it is made again"
        progress(Progress(run_id, "data", 1, 1, text))
    begun = checkpoints.newest_whole(folder / CHECKPOINTS) is not None
    require_same_device(folder, gpu=compute.on_gpu, name=compute.environment()["device"], begun=begun)
    with watch.stage("base"):
        base = find_base(home, request, exclusions, compute, _base_steps(request, progress))
    together = request.settings.train.together > 1
    if together:  # before this process takes memory of its own
        with watch.stage("train"):
            train_together(home, run_id, request.settings.train, progress)
    with watch.stage("data"):
        study = open_study(home, request, prepared, exclusions, base, compute)
    if not together:
        with watch.stage("train"):
            train_until_better(study, folder, progress)
    with watch.stage("evaluate"):
        chosen = measure(home, study, exclusions, base, folder, progress)
    progress(Progress(run_id, "finish", 0, 1, f"keeping {chosen.name}"))
    _write_coverage(home, request, prepared, chosen, folder / COVERAGE)
    adapter = _keep_adapter(home, request, chosen)
    result = RunResult(
        run_id=run_id,
        adapter_id=request.adapter_id,
        adapter_sha256=sha256_folder(adapter),
        checkpoint=chosen.name,
        started_at=started_at,
        finished_at=utc_now(),
        **_trained(folder / METRICS),
        new_chunks=prepared.manifest.of(Role.NEW).num_rows,
        rehearsal_chunks=len(set(_rehearsed(prepared))),
        seconds=watch.seconds,
        training={part: round(spent, 3) for part, spent in study.clock.seconds.items()},
        environment=_environment(home, base, compute, study),
        passes=read_changes(folder),
        attempts=_attempts(folder),
    )
    write_atomic(folder / RESULT, result.model_dump_json(indent=2).encode())
    progress(Progress(run_id, "finish", 1, 1, f"adapter {result.adapter_id}"))
    return result


def _write_coverage(home: Home, request: RunRequest, prepared: Prepared, chosen: Checkpoint, path: Path) -> None:
    accumulation = request.settings.train.accumulation
    coverage = coverage_after(
        parent_coverage(home, request), prepared.manifest, prepared.schedule, chosen.step, accumulation
    )
    write_coverage(path, coverage)


def _keep_adapter(home: Home, request: RunRequest, checkpoint: Checkpoint) -> Path:
    """Copies the chosen weights to the adapter's folder, whole or not at all."""
    target = home.adapter(request.adapter_id)
    if target.is_dir():
        return target
    checkpoints.require_whole(checkpoint)
    written = target.with_name(f".{target.name}.partial")
    shutil.rmtree(written, ignore_errors=True)
    private_dir(written)
    for name in (WEIGHTS, CONFIG):
        shutil.copyfile(checkpoint.folder / name, written / name)
    checkpoints.seal(written)
    written.replace(target)
    fsync_dir(target.parent)
    return target


def _trained(path: Path) -> dict[str, int]:
    records = read_metrics(path)
    return {"steps": records[-1].step, "tokens": records[-1].tokens}


def _attempts(folder: Path) -> tuple[Attempt, ...]:
    found = read_attempts(folder)
    return found.made if found else ()


def _rehearsed(prepared: Prepared) -> Iterator[str]:
    for batch in prepared.schedule.batches():
        if batch.role is Role.REHEARSAL:
            yield from batch.chunk_ids


def _environment(home: Home, base: Path, compute: Compute, study: Study) -> dict[str, str]:
    settings = study.request.settings
    external = study.request.base.kind == "external"
    return {
        **compute.environment(),
        "processes": str(settings.train.together),
        "attention": str(study.model.config._attn_implementation),
        **({"liger-kernel": version()} if settings.model.kernels == "liger" else {}),
        "weights": "nf4" if settings.model.quantize else "full",
        "context": str(study.context),
        VOCABULARY: study.vocabulary,
        **({BASE: content_of(home, base).base_id} if external else {}),
    }


def _base_steps(request: RunRequest, progress: Observer) -> Callable[[StepRecord], None]:
    """Passes on every twentieth step of the making of the base."""
    pacing = Pacing(request.settings.model.builtin.base_tokens)

    def report(record: StepRecord) -> None:
        pace = pacing.after(record)
        if record.step % 20 == 0 or record.step == record.steps:
            text = f"built-in base, {record.tokens:,} tokens"
            rate, left = (pace.tokens_per_second, pace.seconds_left) if pace else (None, None)
            progress(Progress(request.run_id, "base", record.step, record.steps, text, record.loss, rate, left))

    return report
