"""Trains a run to its end, in ever smaller passes where memory runs out on the way."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from pipeline.capacity.passes import Passes, read_changes, write_changes
from pipeline.config.settings import TrainSettings
from pipeline.domain import Split
from pipeline.errors import RunError
from pipeline.home import private_dir
from retrain.processes.sharding import trained_weights
from retrain.progress import Observer, Progress
from retrain.study import CHECKPOINTS, Study, restore, seed_of
from retrain.training import checkpoints
from retrain.training.checkpointing import Checkpointing
from retrain.training.exhaustion import free_memory, is_out_of_memory
from retrain.training.metrics import METRICS, MetricsFile, StepRecord
from retrain.training.pace import Pacing
from retrain.training.recipe import recipe_of
from retrain.training.tracking import trackers
from retrain.training.trainer import Training, fit


def train(study: Study, folder: Path, progress: Observer, *, lr: float | None = None, attempt: str = "") -> str | None:
    """Trains to the end, or to where early stopping ends it, going on from the newest checkpoint of the run's folder.

    When memory runs out it goes on from there too, with half as much in the model at once and the same steps; a CPU first
    takes one pass at a time, which changes no bit. Raises ``RunError`` when a single chunk is too much. Of several
    processes one that ran out leaves the others waiting: it says so, and all must be started again. Else the answer is
    None. ``lr`` is the peak learning rate, that of the settings unless given; ``attempt`` says which of several this is.
    """
    settings = study.request.settings.train
    place = private_dir(folder / CHECKPOINTS)
    val = study.of_split(Split.VAL)
    checkpointing = Checkpointing(
        folder=place,
        every=settings.checkpoint_every,
        keep=settings.keep_checkpoints,
        base_id=study.request.base.base_id,
        score=lambda name: study.score(val, study.request.adapter_id, name, progress),
        selecting=study.selecting,
        patience=settings.patience,
        min_delta=settings.min_delta,
        most_bytes=None if settings.checkpoint_gib is None else round(settings.checkpoint_gib * (1 << 30)),
    )
    recipe = recipe_of(settings, study.compute, seed_of(study.request))
    training = Training(
        study.loaded,
        study.batches,
        recipe if lr is None else replace(recipe, lr=lr),
        folder,
        on_step=lambda record: None,
        checkpointing=checkpointing,
        passes=Passes(settings.pass_tokens, read_changes(folder)),
        clock=study.clock,
    )
    start = trained_weights(study.model)
    lengths = {example.chunk_id: len(example.ids) for batch in study.batches for example in batch.examples}
    full = sum(length >= study.context for length in lengths.values())
    if full:
        text = f"{full:,} of {len(lengths):,} chunks fill the model's context of {study.context:,} tokens; more is left out"
        progress(Progress(study.request.run_id, "train", 0, 0, text))
    if study.selecting is None and (settings.patience or settings.retry.attempts):
        progress(
            Progress(study.request.run_id, "train", 0, 0, nobody_chooses(settings, study.request.settings.min_threads))
        )
    while not _fits(study, training, progress, attempt):
        free_memory()
        done = checkpoints.newest_whole(place)
        if done is None:
            restore(study.model, start)
        compute = training.loaded.compute
        if not compute.on_gpu and compute.threads > 1 and compute.ranks.count == 1:
            in_turn = replace(compute, threads=1)  # the same sums, one after another
            training = replace(training, loaded=replace(training.loaded, compute=in_turn))
            continue
        training = replace(training, passes=_smaller(training, done.step if done else 0))
        write_changes(folder, training.passes.changes)
        last = training.passes.changes[-1]
        text = f"memory ran out; on from step {last.after_step} in passes of {last.tokens} tokens"
        if compute.ranks.count > 1:
            return text
        progress(Progress(study.request.run_id, "train", done.step if done else 0, 0, text))
    return None


def nobody_chooses(settings: TrainSettings, min_threads: int) -> str:
    """What a run is told that has settings for val threads to choose by, and too few of them."""
    without = ["early stopping"] if settings.patience else []
    without += ["second attempt"] if settings.retry.attempts else []
    return (
        f"no {' and no '.join(without)}: val holds fewer than {2 * min_threads} threads (twice gate.min_threads), "
        "which all judge, so that none may choose"
    )


def _fits(study: Study, training: Training, progress: Observer, attempt: str) -> bool:
    """Trains on from the newest checkpoint; False when memory ran out on the way."""
    folder, run_id, first = training.folder, study.request.run_id, study.compute.ranks.first
    done = checkpoints.newest_whole(folder / CHECKPOINTS)
    pacing = Pacing(sum(len(example.ids) for batch in study.batches for example in batch.examples))
    begun = done.step if done else 0
    made: StepRecord | None = None
    with ExitStack() as written:
        metrics = written.enter_context(MetricsFile(folder / METRICS, begun)) if first else None

        def on_step(record: StepRecord) -> None:
            nonlocal made
            made = record
            if metrics is None:
                return
            metrics.add(record)
            pace = pacing.after(record)
            progress(
                Progress(
                    run_id,
                    "train",
                    record.step,
                    record.steps,
                    ", ".join(filter(None, (attempt, f"epoch {record.epoch + 1}", f"{record.tokens:,} tokens"))),
                    record.loss,
                    pace.tokens_per_second if pace else None,
                    pace.seconds_left if pace else None,
                )
            )

        told = trackers(study.request.settings.train.report_to, folder, run_id, begun) if first else []
        try:
            fit(replace(training, on_step=on_step, trackers=told))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return False
    if first and made is not None and made.step < made.steps:
        patience = study.request.settings.train.patience
        text = f"stopped early after step {made.step} of {made.steps}: {patience} checkpoints in a row were no better"
        progress(Progress(run_id, "train", made.step, 0, text))
    return True


def _smaller(training: Training, checkpoint: int) -> Passes:
    largest = max(batch.padded for batch in training.batches)
    less = training.passes.smaller(checkpoint, largest, max(batch.longest for batch in training.batches))
    if less is None:
        raise RunError(
            "memory ran out with one chunk at a time in the model",
            hint="`mailtide plan` says what takes how much; model.context, model.quantize and train.lora_r lower it",
        )
    return less
