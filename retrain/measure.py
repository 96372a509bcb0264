"""After training: choose the checkpoint, measure it and what it is compared with, and write the evidence down."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.domain import Split
from pipeline.errors import RunError
from pipeline.home import Home, write_atomic
from pipeline.runfiles import Exclusions, Loss, read_losses, write_losses
from retrain import checkpoints
from retrain.checkpoints import Checkpoint
from retrain.progress import Observer, Progress
from retrain.references import Reference, of_references, references, unmeasured
from retrain.results import RESULTS_VERSION, entries, retrieval_entry
from retrain.retrieval import evaluate_index, index_of, read_mails
from retrain.select import Scored, best_step, mean_loss
from retrain.study import CHECKPOINTS, Study

KNOWN, LOSSES, RESULTS, BEST = "known_losses.parquet", "losses.parquet", "eval_results.json", "best_checkpoint.txt"


@dataclass(frozen=True, slots=True)
class Measured:
    """The checkpoint that becomes the adapter."""

    checkpoint: Checkpoint


def measure(home: Home, study: Study, exclusions: Exclusions, folder: Path, progress: Observer) -> Measured:
    """Writes ``losses.parquet``, ``eval_results.json`` and ``best_checkpoint.txt``, in this order, where they are missing.

    The chosen checkpoint is the one that the selecting chunks prefer, the last one where none may choose. Only the chosen
    one is measured on test.
    """
    found = checkpoints.find(folder / CHECKPOINTS)
    chosen = choose(found, study.selecting)
    known = read_losses(folder / KNOWN)
    compared = references(home, study.request)
    if not (folder / LOSSES).is_file():
        write_losses(folder / LOSSES, _all_losses(study, found, chosen, compared, known, progress))
    if not (folder / RESULTS).is_file():
        losses = [*read_losses(folder / LOSSES), *of_references(known, compared)]
        results = {
            "version": RESULTS_VERSION,
            "checkpoints": [*entries(losses, study.sample), *_retrieval(home, study, exclusions, progress)],
        }
        write_atomic(folder / RESULTS, (json.dumps(results, indent=1) + "\n").encode())
    if not (folder / BEST).is_file():
        write_atomic(folder / BEST, f"{chosen.name}\n".encode())
    return Measured(chosen)


def choose(found: Sequence[Checkpoint], selecting: frozenset[str] | None) -> Checkpoint:
    """The checkpoint that becomes the adapter; raises ``RunError`` when its weights are gone."""
    if not found:
        raise RunError("training left no checkpoint", hint="run `mailtide retrain --confirm` again")
    history = []
    for checkpoint in found if selecting is not None else ():
        loss = mean_loss(read_losses(checkpoint.folder / checkpoints.LOSSES), selecting or ())
        if loss is not None:
            history.append(Scored(checkpoint.step, loss))
    best = best_step(history)
    chosen = next((checkpoint for checkpoint in found if checkpoint.step == best), found[-1])
    if not chosen.resumable:
        raise RunError(f"{chosen.folder} holds no weights", hint="remove the run's checkpoints and run again")
    return chosen


def _all_losses(
    study: Study,
    found: Sequence[Checkpoint],
    chosen: Checkpoint,
    compared: Sequence[Reference],
    known: Sequence[Loss],
    progress: Observer,
) -> list[Loss]:
    losses = [loss for checkpoint in found for loss in read_losses(checkpoint.folder / checkpoints.LOSSES)]
    own = Reference(study.request.adapter_id, chosen.name, chosen.folder)
    with _serving(study, own):
        losses += study.score(study.of_split(Split.TEST), own.adapter_id, own.checkpoint, progress)
    for reference in compared:
        lacking = unmeasured(reference, study.examples, known)
        if lacking:
            with _serving(study, reference):
                losses += study.score(lacking, reference.adapter_id, reference.checkpoint, progress)
    return losses


@contextmanager
def _serving(study: Study, reference: Reference) -> Iterator[None]:
    """The study's model as ``reference``, on the one base that is loaded."""
    model = study.model
    if reference.folder is None:
        with model.disable_adapter():
            yield
        return
    before = model.active_adapter
    model.load_adapter(str(reference.folder), adapter_name="measured")
    model.set_adapter("measured")
    try:
        yield
    finally:
        model.set_adapter(before)
        model.delete_adapter("measured")


def _retrieval(home: Home, study: Study, exclusions: Exclusions, progress: Observer) -> list[dict[str, object]]:
    run_id = study.request.run_id
    progress(Progress(run_id, "retrieval", 0, 1, "BM25"))
    mails = read_mails(home, study.request, exclusions)
    index = index_of(mails)
    most = study.request.settings.eval.retrieval_queries
    found = [retrieval_entry(evaluate_index(index, mails, split, most), split) for split in (Split.VAL, Split.TEST)]
    progress(Progress(run_id, "retrieval", 1, 1, f"{len(mails)} mails"))
    return found
