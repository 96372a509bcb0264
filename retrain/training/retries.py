"""Trains again within a run, with another learning rate, when its best checkpoint improves too little on what it continues.

The attempt under way has the run's folder. One that has ended and is not, or not yet, kept lies in ``attempts/NUMBER/``,
with its checkpoints, steps and passes; ``attempts.json`` says how far things are, and whatever of the moves between the two
a kill left undone is done first. So the run ends with the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from pipeline.capacity.passes import PASSES
from pipeline.domain import Split
from pipeline.errors import RunError
from pipeline.home import fsync_dir, private_dir
from pipeline.runs.attempts import Attempts, read_attempts, write_attempts
from retrain.processes.sharding import trained_weights
from retrain.progress import Observer, Progress
from retrain.study import CHECKPOINTS, Study, restore
from retrain.training.checkpointing import history_of
from retrain.training.early_stopping import Scored, best_step, mean_loss
from retrain.training.metrics import METRICS
from retrain.training.to_the_end import train

MOVED = (METRICS, PASSES, CHECKPOINTS)
"""What an attempt leaves; the checkpoints are moved last, so where they are all of it is."""


def train_until_better(study: Study, folder: Path, progress: Observer) -> str | None:
    """:func:`retrain.training.to_the_end.train`, as often as ``train.retry`` asks for. Once, where no val chunk may choose:
    there is then nothing to tell an improvement by that would not judge as well."""
    settings = study.request.settings.train
    retry, selecting, ranks = settings.retry, study.selecting, study.compute.ranks
    if not retry.attempts or selecting is None:
        return train(study, folder, progress)
    start = trained_weights(study.model)
    found = ranks.agreed(lambda: settled(folder))
    if found is None:
        chosen = [example for example in study.of_split(Split.VAL) if example.chunk_id in selecting]
        before = mean_loss(study.score(chosen, study.request.adapter_id, "before", progress), selecting)
        if before is None:
            return train(study, folder, progress)
        found = Attempts(before=before)
    while found.kept is None:
        earlier = found
        lr = earlier.next_lr(settings.lr, retry)
        number = f"attempt {len(earlier.made) + 1} of at most {retry.attempts + 1}"
        if earlier.made:
            restore(study.model, start)
            gained = earlier.before - min(attempt.loss for attempt in earlier.made)
            short = f"the loss fell by {gained:.3f} nats per token, less than {retry.threshold:g}"
            text = f"{number}, learning rate {lr:g}: {short}"
            progress(Progress(study.request.run_id, "train", 0, 0, text))
        unfinished = train(study, folder, progress, lr=lr, attempt=number)
        if unfinished is not None:
            return unfinished

        def ended(earlier: Attempts = earlier, lr: float = lr) -> Attempts:
            best = _best(folder, selecting)
            write_attempts(folder, earlier.after(best.step, best.loss, lr, retry))
            after = settled(folder)
            assert after is not None
            return after

        found = ranks.agreed(ended)
    return None


def settled(folder: Path) -> Attempts | None:
    """What ``attempts.json`` tells, with the files where they then belong; None before the end of the first attempt."""
    attempts = read_attempts(folder)
    if attempts is None:
        return None
    last = len(attempts.made)
    if attempts.kept != last:
        _move(folder, _place(folder, last))
    if attempts.kept is not None:
        _move(_place(folder, attempts.kept), folder)
        for attempt in attempts.made:
            if attempt.number != attempts.kept:
                _empty(_place(folder, attempt.number) / CHECKPOINTS)
    return attempts


def _place(folder: Path, number: int) -> Path:
    return folder / "attempts" / str(number)


def _move(source: Path, target: Path) -> None:
    """Moves an attempt's files, or the rest of them; nothing where it was done."""
    if (target / CHECKPOINTS).exists() or not (source / CHECKPOINTS).exists():
        return
    private_dir(target)
    for name in MOVED:
        if (source / name).exists():
            (source / name).replace(target / name)
    fsync_dir(source)
    fsync_dir(target)


def _empty(folder: Path) -> None:
    """Frees the checkpoints of an attempt that is not kept; the empty folder stays as a sign that it was moved."""
    for path in folder.iterdir():
        shutil.rmtree(path)


def _best(folder: Path, selecting: Collection[str]) -> Scored:
    """The checkpoint of the attempt under way that its loss speaks for."""
    history = history_of(folder / CHECKPOINTS, selecting)
    best = best_step(history)
    if best is None:
        raise RunError("training left no checkpoint with a loss", hint="run `mailtide retrain --confirm` again")
    return next(scored for scored in history if scored.step == best)
