"""``eval_results.json`` as a whole: every figure of every checkpoint, a summary, the choice, and what the gate may object
to.

Described in ``docs/evaluation.md``. A figure that cannot be computed is absent, with its reason under ``absent``, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from pipeline.domain import Split
from pipeline.intervals import Interval, ratio_interval
from pipeline.runs.harms import GATE_EVIDENCE, Figure
from pipeline.runs.replyfiles import Given, ReplyLoss
from pipeline.runs.requests import RunRequest
from pipeline.runs.runfiles import Loss
from pipeline.sampling.halves import selects
from retrain.evaluation.choosing import Choice
from retrain.evaluation.heldout import HeldOut
from retrain.evaluation.latency import quantile, slower
from retrain.evaluation.rag import FIGURES, difference, reply_figures
from retrain.evaluation.results import Measured, entries, metric_of
from retrain.evaluation.writing import Written
from retrain.models.pen import Timed

RESULTS_VERSION = 2
"""2: replies, a summary, the selection, and what the gate may object to. What version 1 had is where it was."""

NO_REPLY = "no reply of this split answers a mail that is here"

WRITTEN_FIGURES = {
    "rag_accuracy": "rouge_l",
    "rag_bleu": "bleu",
    "rag_exact": "exact",
    "rag_f1": "f1",
    "repetition": "repetition",
}
"""Figures of written replies, and the score that each is the mean of."""

AT_K = {
    "reply_loss_retrieved",
    "reply_loss_random",
    "rag_gain",
    "rag_gain_random",
    "rag_gain_over_random",
    *WRITTEN_FIGURES,
} - {"repetition"}
"""Figures that depend on how many mails are given, which their names then say."""

TIMES: dict[str, tuple[Callable[[Timed], float], float]] = {
    "first_token_p50": (lambda answer: answer.first_token, 0.5),
    "first_token_p95": (lambda answer: answer.first_token, 0.95),
    "answer_p50": (lambda answer: answer.answer, 0.5),
    "answer_p95": (lambda answer: answer.answer, 0.95),
}
"""Seconds, by what is timed and percentile."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a run measured. ``pairs`` are answers timed in turn with those of the champion, ``too_long`` counts by split
    the replies that were passed over, ``retrieval`` are the entries of the search."""

    losses: Sequence[Loss]
    replies: Sequence[ReplyLoss]
    written: Sequence[Written]
    sample: Mapping[str, HeldOut]
    too_long: Mapping[Split, int]
    pairs: Sequence[tuple[Timed, Timed]]
    retrieval: Sequence[Measured]
    choice: Choice


def document(request: RunRequest, evidence: Evidence, *, choosing: bool) -> Measured:
    """The whole of ``eval_results.json``; ``choosing`` says that half of val's threads chose and must not judge."""
    found = entries(evidence.losses, evidence.sample)
    for entry in found:
        _add_replies(entry, request, evidence)
        if (entry["adapter_id"], entry["checkpoint"]) == (request.adapter_id, evidence.choice.chosen):
            _add_times(entry, request, evidence)
    return {
        "version": RESULTS_VERSION,
        "k": request.settings.eval.rag_k,
        "checkpoints": [*found, *evidence.retrieval],
        "summary": summary(request, found, evidence.retrieval, evidence.choice.chosen),
        "selection": asdict(evidence.choice),
        GATE_EVIDENCE: [figure.row() for figure in gate_evidence(request, evidence, choosing=choosing)],
    }


def _add_replies(entry: Measured, request: RunRequest, evidence: Evidence) -> None:
    """Adds what is known of an entry's replies, and why the rest is not."""
    names = (entry["adapter_id"], entry["checkpoint"], entry["split"])
    settings = request.settings.eval
    losses = [one for one in evidence.replies if (one.adapter_id, one.checkpoint, one.split) == names]
    figures = {**reply_figures(losses)}
    entry["n_replies"] = len({loss.message_key for loss in losses})
    entry["n_replies_too_long"] = evidence.too_long.get(Split(entry["split"]), 0)
    why = NO_REPLY
    if not settings.max_replies:
        why = "eval.max_replies is 0"
    elif not losses and evidence.replies:
        why = "its weights were gone before it could be asked (train.keep_checkpoints)"
    _put(entry, {name: figures.get(name) for name in FIGURES}, settings.rag_k, why)
    written = [one for one in evidence.written if (one.adapter_id, one.checkpoint, one.split) == names]
    if not settings.generate:
        why = "eval.generate is 0"
    elif written:
        why = "what was written is too short for it"
    _put(entry, {name: _written_mean(written, score) for name, score in WRITTEN_FIGURES.items()}, settings.rag_k, why)


def _add_times(entry: Measured, request: RunRequest, evidence: Evidence) -> None:
    """Adds how long answers took, where that was asked for."""
    if entry["split"] != Split.VAL or not evidence.pairs:
        why = "eval.latency is 0" if not request.settings.eval.latency else "it is measured on val alone"
        entry["absent"] += [{"metric": name, "reason": why} for name in TIMES]
        return
    for name, (taken, share) in TIMES.items():
        found = quantile([taken(ours) for ours, _ in evidence.pairs], share)
        bounds = {"ci_low": found.low, "ci_high": found.high, "few": found.low is None or found.high is None}
        entry["metrics"].append({"metric": name, "value": found.value, "n": found.n, **bounds})


def _put(entry: Measured, figures: Mapping[str, Interval | None], k: int, why: str) -> None:
    absent = entry.setdefault("absent", [])
    for name, interval in figures.items():
        told = f"{name}@{k}" if name in AT_K else name
        metric = metric_of(told, interval)
        if metric is None:
            absent.append({"metric": told, "reason": why})
        else:
            entry["metrics"].append(metric)


def _written_mean(written: Sequence[Written], score: str) -> Interval | None:
    """The mean of a score, with bounds between 0 and 1 as all scores are, and without where all of them are equal: how they
    spread is then not known, and not nothing."""
    known = [(value, one.thread_id) for one in written if (value := getattr(one, score)) is not None]
    values = [value for value, _ in known]
    found = ratio_interval(values, [1.0] * len(known), [thread for _, thread in known])
    if found is None or found.n_clusters < 2:
        return found
    alike = len(set(values)) == 1
    return replace(found, low=-math.inf if alike else max(0.0, found.low), high=math.inf if alike else min(1.0, found.high))


def summary(request: RunRequest, found: Sequence[Measured], retrieval: Sequence[Measured], chosen: str) -> list[Measured]:
    """One entry per adapter and checkpoint: its perplexities, and on val how near written replies come to the real ones and
    how often the search finds what a reply answers."""
    k = request.settings.eval.rag_k
    roles = {ref.adapter_id: role for role in ("best", "parent", "champion") if (ref := getattr(request, role)) is not None}
    searched = {entry["split"]: entry for entry in retrieval}
    rows = []
    for name, step in dict.fromkeys((entry["adapter_id"], entry["checkpoint"]) for entry in found):
        own = {entry["split"]: entry for entry in found if (entry["adapter_id"], entry["checkpoint"]) == (name, step)}
        row: Measured = {
            "adapter_id": name,
            "checkpoint": step,
            "role": "run" if name == request.adapter_id else roles.get(name, "base"),
            "chosen": (name, step) == (request.adapter_id, chosen),
            "absent": [],
        }
        wanted = {
            "val_perplexity": (own.get("val"), "perplexity"),
            "test_perplexity": (own.get("test"), "perplexity"),
            "rag_accuracy_at_k": (own.get("val"), f"rag_accuracy@{k}"),
            "rag_gain_at_k": (own.get("val"), f"rag_gain@{k}"),
            "retrieval_recall_at_k": (searched.get("val"), "recall@5"),
        }
        for told, (entry, metric) in wanted.items():
            figure = _figure(entry, metric)
            if figure is None:
                row["absent"].append({"metric": told, "reason": _reason(entry, metric, row, told)})
            else:
                row[told] = {key: figure[key] for key in ("value", "n", "ci_low", "ci_high", "few")}
        rows.append(row)
    return rows


def _figure(entry: Measured | None, metric: str) -> Measured | None:
    """The figure of an entry over all of its windows."""
    own = entry["metrics"] if entry is not None else ()
    return next((one for one in own if one["metric"] == metric and "window_from" not in one), None)


def _reason(entry: Measured | None, metric: str, row: Measured, told: str) -> str:
    if entry is None:
        if told.startswith("test") and row["role"] == "run" and not row["chosen"]:
            return "only the chosen checkpoint is measured on test"
        return "the split holds nothing to measure on"
    known = {one["metric"]: one["reason"] for one in entry.get("absent", ())}
    return str(known.get(metric, NO_REPLY))


def gate_evidence(request: RunRequest, evidence: Evidence, *, choosing: bool) -> list[Figure]:
    """What the gate may object to.

    ``rag`` is the loss of val replies given retrieved mail, this run's adapter less the champion, in nats per token, on
    threads that had no part in choosing. ``latency`` is by what share the 95th percentile of a whole answer is above the
    champion's.
    """
    champion = request.champion.adapter_id if request.champion else f"base:{request.base.base_id}"
    judging = [
        one
        for one in evidence.replies
        if one.split == Split.VAL and one.given == Given.RETRIEVED and not (choosing and selects(one.thread_id))
    ]
    ours, theirs = (
        {one.message_key: one for one in judging if one.adapter_id == name and (not step or one.checkpoint == step)}
        for name, step in ((request.adapter_id, evidence.choice.chosen), (champion, ""))
    )
    slow = slower([(ours.answer, theirs.answer) for ours, theirs in evidence.pairs])
    untimed = "too little to time" if request.settings.eval.latency else "eval.latency is 0, so nothing was timed"
    return [
        Figure("retrieval", None, reason="no adapter takes part in the search, so none can lose by it"),
        Figure.of("rag", difference(theirs, ours), "no val reply that may judge was put to both"),
        Figure("latency", slow.value, slow.low, slow.high, slow.n) if slow else Figure("latency", None, reason=untimed),
    ]
