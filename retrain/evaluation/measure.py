"""After training: choose the checkpoint, measure it and what it is compared with, and write the evidence down."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.domain import Split
from pipeline.errors import RunError
from pipeline.home import Home, write_atomic
from pipeline.runs.questionfile import QUESTIONS, write_questions
from pipeline.runs.replyfiles import REPLIES, Given, ReplyLoss, read_reply_losses, unlike, write_reply_losses
from pipeline.runs.runfiles import Exclusions, Loss, read_losses, write_losses
from pipeline.runs.selection import parse_thresholds, parse_weights
from pipeline.sampling.halves import selects
from retrain.benchmarks.in_run import results_of, run_benchmarks
from retrain.evaluation.asking import Put
from retrain.evaluation.choosing import Candidate, Choice, choose, last, parts_of
from retrain.evaluation.document import Evidence, document
from retrain.evaluation.latency import in_turn
from retrain.evaluation.probes import losses_of_copies, probe
from retrain.evaluation.questions import Questions, ask, at_checkpoint, foretold_file, open_questions, write, wrote_file
from retrain.evaluation.references import Reference, of_references, references, unmeasured
from retrain.evaluation.results import retrieval_entry
from retrain.evaluation.writing import WRITTEN, Written, read_written, write_written
from retrain.models.pen import Timed
from retrain.progress import Observer, Progress
from retrain.search.retrieval import evaluate_index
from retrain.study import CHECKPOINTS, Study
from retrain.training import checkpoints
from retrain.training.checkpoints import Checkpoint

KNOWN, LOSSES, RESULTS, BEST = "known_losses.parquet", "losses.parquet", "eval_results.json", "best_checkpoint.txt"


@dataclass(frozen=True, slots=True)
class Measured:
    """The checkpoint that becomes the adapter."""

    checkpoint: Checkpoint


def measure(home: Home, study: Study, exclusions: Exclusions, base: Path, folder: Path, progress: Observer) -> Measured:
    """Writes ``losses.parquet``, ``replies.parquet``, ``written.parquet``, ``benchmarks.parquet`` (where the
    settings name benchmarks), ``questions.parquet``, ``eval_results.json`` and ``best_checkpoint.txt``, in this order,
    where they are missing.

    Every checkpoint that has its weights is asked about the val replies. The chosen one is that which the selecting threads
    prefer by the rule of the settings, the last where none may choose; it alone is measured on test. ``base`` is the folder
    of the base.
    """
    found = checkpoints.find(folder / CHECKPOINTS)
    questions = open_questions(home, study, exclusions, base)
    _put_to_all(study, questions, folder, found, progress)
    choice = choose_checkpoint(study, folder, found)
    chosen = next(checkpoint for checkpoint in found if checkpoint.name == choice.chosen)
    if not chosen.resumable:
        raise RunError(f"{chosen.folder} holds no weights", hint="remove the run's checkpoints and run again")
    known = read_losses(folder / KNOWN)
    compared = references(home, study.request)
    own = Reference(study.request.adapter_id, chosen.name, chosen.folder)
    if not (folder / LOSSES).is_file():
        losses = _all_losses(study, found, own, compared, known, progress)
        losses += losses_of_copies(home, study, exclusions, base, [own, *compared], known, serving)
        write_losses(folder / LOSSES, losses)
    if not (folder / REPLIES).is_file():
        write_reply_losses(folder / REPLIES, _all_replies(study, questions, folder, found, own, compared, progress))
    if not (folder / WRITTEN).is_file():
        write_written(folder / WRITTEN, _all_written(study, questions, folder, found, own, compared, progress))
    if not (folder / RESULTS).is_file():
        evidence = Evidence(
            losses=[*read_losses(folder / LOSSES), *of_references(known, compared, study.version)],
            replies=read_reply_losses(folder / REPLIES),
            written=read_written(folder / WRITTEN),
            sample=study.sample,
            too_long=questions.too_long,
            pairs=_timed(study, questions, own, compared, progress),
            retrieval=_retrieval(study, questions, folder, progress),
            choice=choice,
        )
        results = document(study.request, evidence, choosing=study.selecting is not None)
        probed, figures = probe(home, study, base, own, evidence.written, serving)
        results |= probed
        results["gate_evidence"] += figures
        challenged = _challenged(study, compared)
        benchmarked = run_benchmarks(home, study, base, folder, own, challenged, serving, progress)
        entries, results["benchmarks"], lost = results_of(benchmarked, own, challenged)
        results["checkpoints"] += entries
        results["gate_evidence"].append(lost)
        write_atomic(folder / RESULTS, (json.dumps(results, indent=1) + "\n").encode())
    if not (folder / BEST).is_file():
        write_atomic(folder / BEST, f"{chosen.name}\n".encode())
    return Measured(chosen)


def _put_to_all(study: Study, questions: Questions, folder: Path, found: Sequence[Checkpoint], progress: Observer) -> None:
    run_id = study.request.run_id
    for place, checkpoint in enumerate(found):
        if checkpoint.resumable and questions.put:
            progress(Progress(run_id, "replies", place, len(found), checkpoint.name))
            with serving(study, Reference(study.request.adapter_id, checkpoint.name, checkpoint.folder)):
                at_checkpoint(study, questions, folder, checkpoint.name)


def choose_checkpoint(study: Study, folder: Path, found: Sequence[Checkpoint]) -> Choice:
    """Which checkpoint becomes the adapter, and why. Raises ``RunError`` when training left none."""
    if not found:
        raise RunError("training left no checkpoint", hint="run `mailtide retrain --confirm` again")
    settings = study.request.settings.eval
    candidates = [
        Candidate(
            checkpoint.name,
            checkpoint.step,
            parts_of(
                read_losses(checkpoint.folder / checkpoints.LOSSES),
                [one for one in read_reply_losses(foretold_file(folder, checkpoint.name)) if selects(one.thread_id)],
                [one for one in read_written(wrote_file(folder, checkpoint.name)) if selects(one.thread_id)],
                study.selecting or frozenset(),
            ),
            checkpoint.resumable,
        )
        for checkpoint in found
    ]
    if study.selecting is None:
        return last(candidates, settings.select)
    return choose(candidates, settings.select, parse_weights(settings.weights), parse_thresholds(settings.thresholds))


def _all_losses(
    study: Study,
    found: Sequence[Checkpoint],
    own: Reference,
    compared: Sequence[Reference],
    known: Sequence[Loss],
    progress: Observer,
) -> list[Loss]:
    losses = [loss for checkpoint in found for loss in read_losses(checkpoint.folder / checkpoints.LOSSES)]
    with serving(study, own):
        losses += study.score(study.of_split(Split.TEST), own.adapter_id, own.checkpoint, progress)
    for reference in compared:
        lacking = unmeasured(reference, study.examples, known, study.version)
        if lacking:
            with serving(study, reference):
                losses += study.score(lacking, reference.adapter_id, reference.checkpoint, progress)
    return losses


def _all_replies(
    study: Study,
    questions: Questions,
    folder: Path,
    found: Sequence[Checkpoint],
    own: Reference,
    compared: Sequence[Reference],
    progress: Observer,
) -> list[ReplyLoss]:
    losses = [loss for checkpoint in found for loss in read_reply_losses(foretold_file(folder, checkpoint.name))]
    asked = [(own, questions.of(Split.TEST)), *((reference, list(questions.put)) for reference in compared)]
    for place, (reference, put) in enumerate(asked):
        progress(Progress(study.request.run_id, "replies", place, len(asked), f"to {reference.adapter_id}"))
        if put:
            with serving(study, reference):
                losses += ask(study, questions, put, reference.adapter_id, reference.checkpoint)
    return unlike(losses)


def _all_written(
    study: Study,
    questions: Questions,
    folder: Path,
    found: Sequence[Checkpoint],
    own: Reference,
    compared: Sequence[Reference],
    progress: Observer,
) -> list[Written]:
    written = [one for checkpoint in found for one in read_written(wrote_file(folder, checkpoint.name))]
    if not any(map(questions.to_write, (Split.VAL, Split.TEST))):
        return written
    asked = [(own, (Split.TEST,)), *((reference, (Split.VAL, Split.TEST)) for reference in compared)]
    for place, (reference, splits) in enumerate(asked):
        progress(Progress(study.request.run_id, "replies", place, len(asked), f"written by {reference.adapter_id}"))
        with serving(study, reference):
            written += write(questions, reference.adapter_id, reference.checkpoint, *splits)
    return written


def _timed(
    study: Study, questions: Questions, own: Reference, compared: Sequence[Reference], progress: Observer
) -> list[tuple[Timed, Timed]]:
    """Answers of the chosen checkpoint and of the champion (the bare base where there is none), in turn."""
    put, pairs = (
        [one for one in questions.of(Split.VAL) if one.given is Given.RETRIEVED],
        study.request.settings.eval.latency,
    )
    if not (put and pairs):
        return []
    progress(Progress(study.request.run_id, "replies", 0, pairs, "timed"))
    against = _challenged(study, compared)

    def timing(reference: Reference) -> Callable[[Put], Timed]:
        def answer(one: Put) -> Timed:
            with serving(study, reference):
                return questions.pen.time(one.prompt)

        return answer

    return in_turn(put, pairs, timing(own), timing(against))


def _challenged(study: Study, compared: Sequence[Reference]) -> Reference:
    """The champion; the bare base where there is none."""
    champion = study.request.champion
    return compared[0] if champion is None else next(one for one in compared if one.adapter_id == champion.adapter_id)


@contextmanager
def serving(study: Study, reference: Reference) -> Iterator[None]:
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


def _retrieval(study: Study, questions: Questions, folder: Path, progress: Observer) -> list[dict[str, object]]:
    run_id, most = study.request.run_id, study.request.settings.eval.retrieval_queries
    progress(Progress(run_id, "retrieval", 0, 1, "BM25"))
    found = {split: evaluate_index(questions.index, questions.mails, split, most) for split in (Split.VAL, Split.TEST)}
    write_questions(folder / QUESTIONS, [one for retrieval in found.values() for one in retrieval.questions])
    progress(Progress(run_id, "retrieval", 1, 1, f"{len(questions.mails)} mails"))
    return [retrieval_entry(retrieval, split) for split, retrieval in found.items()]
