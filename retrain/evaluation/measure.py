"""After training: choose the checkpoint, measure it and what it is compared with, and write the evidence down."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.domain import Split
from pipeline.errors import RunError
from pipeline.home import Home, write_atomic
from pipeline.runs.harms import GATE_EVIDENCE
from pipeline.runs.questionfile import QUESTIONS, write_questions
from pipeline.runs.replyfiles import REPLIES, Given, ReplyLoss, read_reply_losses, unlike, write_reply_losses
from pipeline.runs.runfiles import Exclusions, Loss, read_losses, write_losses
from pipeline.runs.selection import parse_thresholds, parse_weights
from pipeline.sampling.halves import selects
from retrain.benchmarks.in_run import results_of, run_benchmarks
from retrain.evaluation.asking import Trial
from retrain.evaluation.choosing import Candidate, Choice, choose, last, parts_of
from retrain.evaluation.document import Evidence, document
from retrain.evaluation.latency import in_turn
from retrain.evaluation.probes import losses_of_copies, probe
from retrain.evaluation.questions import Questions, ask, at_checkpoint, foretold_file, open_questions, write, wrote_file
from retrain.evaluation.references import Reference, of_references, references, unmeasured
from retrain.evaluation.results import retrieval_entry
from retrain.evaluation.writing import WRITTEN, Written, read_written, write_written
from retrain.models.pen import Timed
from retrain.progress import Observer, Progress, Step
from retrain.search.retrieval import evaluate_index
from retrain.study import CHECKPOINTS, Study
from retrain.training import checkpoints
from retrain.training.checkpoints import Checkpoint

KNOWN, LOSSES, RESULTS, BEST = "known_losses.parquet", "losses.parquet", "eval_results.json", "best_checkpoint.txt"


@dataclass(frozen=True, slots=True)
class Measuring:
    """A run's study with all whose losses and replies it wants: its checkpoints (``found``), the one that becomes the
    adapter (``own``) and what that is ``compared`` with, the bare base first."""

    study: Study
    questions: Questions
    folder: Path
    found: Sequence[Checkpoint]
    own: Reference
    compared: Sequence[Reference]
    progress: Observer

    @property
    def challenged(self) -> Reference:
        """The champion; the bare base where there is none."""
        champion = self.study.request.champion
        if champion is None:
            return self.compared[0]
        return next(one for one in self.compared if one.adapter_id == champion.adapter_id)

    def losses(self, known: Sequence[Loss]) -> list[Loss]:
        """Every checkpoint's on val, the chosen one's on test, and those of what it is compared with that are not known."""
        study, own = self.study, self.own
        losses = [loss for checkpoint in self.found for loss in read_losses(checkpoint.folder / checkpoints.LOSSES)]
        with study.serving(own):
            losses += study.score(study.of_split(Split.TEST), own.adapter_id, own.checkpoint, self.progress)
        for reference in self.compared:
            lacking = unmeasured(reference, study.examples, known, study.version)
            if lacking:
                with study.serving(reference):
                    losses += study.score(lacking, reference.adapter_id, reference.checkpoint, self.progress)
        return losses

    def replies(self) -> list[ReplyLoss]:
        """What the real replies cost each of them, given nothing and given mail."""
        losses = [one for each in self.found for one in read_reply_losses(foretold_file(self.folder, each.name))]
        test = self.questions.of(Split.TEST)
        asked = [(self.own, test), *((reference, list(self.questions.put)) for reference in self.compared)]
        for place, (reference, put) in enumerate(asked):
            self._say("replies", place, len(asked), f"to {reference.adapter_id}")
            if put:
                with self.study.serving(reference):
                    losses += ask(self.study, self.questions, put, reference.adapter_id, reference.checkpoint)
        return unlike(losses)

    def written(self) -> list[Written]:
        """Replies as each of them writes them; none where the settings ask for none."""
        written = [one for each in self.found for one in read_written(wrote_file(self.folder, each.name))]
        if not any(map(self.questions.to_write, (Split.VAL, Split.TEST))):
            return written
        asked = [(self.own, (Split.TEST,)), *((reference, (Split.VAL, Split.TEST)) for reference in self.compared)]
        for place, (reference, splits) in enumerate(asked):
            self._say("replies", place, len(asked), f"written by {reference.adapter_id}")
            with self.study.serving(reference):
                written += write(self.questions, reference.adapter_id, reference.checkpoint, *splits)
        return written

    def timed(self) -> list[tuple[Timed, Timed]]:
        """Answers of the chosen checkpoint and of what it challenges, in turn."""
        put = [one for one in self.questions.of(Split.VAL) if one.given is Given.RETRIEVED]
        pairs = self.study.request.settings.eval.latency
        if not (put and pairs):
            return []
        self._say("replies", 0, pairs, "timed")

        def timing(reference: Reference) -> Callable[[Trial], Timed]:
            def answer(one: Trial) -> Timed:
                with self.study.serving(reference):
                    return self.questions.pen.time(one.prompt)

            return answer

        return in_turn(put, pairs, timing(self.own), timing(self.challenged))

    def retrieval(self) -> list[dict[str, object]]:
        """How well the search found what replies answer; writes ``questions.parquet``."""
        questions, most = self.questions, self.study.request.settings.eval.retrieval_queries
        self._say("retrieval", 0, 1, "BM25")
        found = {split: evaluate_index(questions.index, questions.mails, split, most) for split in (Split.VAL, Split.TEST)}
        write_questions(self.folder / QUESTIONS, [one for each in found.values() for one in each.questions])
        self._say("retrieval", 1, 1, f"{len(questions.mails)} mails")
        return [retrieval_entry(retrieval, split) for split, retrieval in found.items()]

    def _say(self, step: Step, done: int, total: int, text: str) -> None:
        self.progress(Progress(self.study.request.run_id, step, done, total, text))


def measure(home: Home, study: Study, exclusions: Exclusions, base: Path, folder: Path, progress: Observer) -> Checkpoint:
    """Measures the run and returns the checkpoint that becomes the adapter.

    Writes ``losses.parquet``, ``replies.parquet``, ``written.parquet``, ``benchmarks.parquet`` (where the settings name
    benchmarks), ``questions.parquet``, ``eval_results.json`` and ``best_checkpoint.txt``, in this order, where they are
    missing. Every checkpoint that has its weights is asked about the val replies. The chosen one is that which the
    selecting threads prefer by the rule of the settings, the last where none may choose; it alone is measured on test.
    ``base`` is the folder of the base.
    """
    found = checkpoints.find(folder / CHECKPOINTS)
    questions = open_questions(home, study, exclusions, base)
    _put_to_all(study, questions, folder, found, progress)
    choice = choose_checkpoint(study, folder, found)
    chosen = next(checkpoint for checkpoint in found if checkpoint.name == choice.chosen)
    if not chosen.resumable:
        raise RunError(f"{chosen.folder} holds no weights", hint="remove the run's checkpoints and run again")
    known = read_losses(folder / KNOWN)
    own = Reference(study.request.adapter_id, chosen.name, chosen.folder)
    run = Measuring(study, questions, folder, found, own, references(home, study.request), progress)
    if not (folder / LOSSES).is_file():
        losses = run.losses(known) + losses_of_copies(home, study, exclusions, base, [own, *run.compared], known)
        write_losses(folder / LOSSES, losses)
    if not (folder / REPLIES).is_file():
        write_reply_losses(folder / REPLIES, run.replies())
    if not (folder / WRITTEN).is_file():
        write_written(folder / WRITTEN, run.written())
    if not (folder / RESULTS).is_file():
        results = _results(home, run, base, choice, known)
        write_atomic(folder / RESULTS, (json.dumps(results, indent=1) + "\n").encode())
    if not (folder / BEST).is_file():
        write_atomic(folder / BEST, f"{chosen.name}\n".encode())
    return chosen


def _results(home: Home, run: Measuring, base: Path, choice: Choice, known: Sequence[Loss]) -> dict[str, Any]:
    """``eval_results.json`` from the evidence that is written, and what is measured for it alone."""
    study, folder = run.study, run.folder
    evidence = Evidence(
        losses=[*read_losses(folder / LOSSES), *of_references(known, run.compared, study.version)],
        replies=read_reply_losses(folder / REPLIES),
        written=read_written(folder / WRITTEN),
        sample=study.sample,
        too_long=run.questions.too_long,
        pairs=run.timed(),
        retrieval=run.retrieval(),
        choice=choice,
    )
    results = document(study.request, evidence, choosing=study.selecting is not None)
    probed, figures = probe(home, study, base, run.own, evidence.written)
    results |= probed
    benchmarked = run_benchmarks(home, study, base, folder, run.own, run.challenged, run.progress)
    entries, results["benchmarks"], lost = results_of(benchmarked, run.own, run.challenged)
    results["checkpoints"] += entries
    results[GATE_EVIDENCE] += [figure.row() for figure in (*figures, lost)]
    return results


def _put_to_all(study: Study, questions: Questions, folder: Path, found: Sequence[Checkpoint], progress: Observer) -> None:
    run_id = study.request.run_id
    for place, checkpoint in enumerate(found):
        if checkpoint.resumable and questions.put:
            progress(Progress(run_id, "replies", place, len(found), checkpoint.name))
            with study.serving(Reference(study.request.adapter_id, checkpoint.name, checkpoint.folder)):
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
