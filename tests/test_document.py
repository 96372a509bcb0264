"""eval_results.json keeps its schema, an absent figure has a reason, and what the gate may object to has the right sign."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pipeline.domain import Split
from pipeline.runs.harms import read_figures
from pipeline.runs.replyfiles import Given, ReplyLoss
from pipeline.runs.requests import RunRequest
from pipeline.runs.runfiles import Loss
from pipeline.sampling.halves import selects
from retrain.evaluation.choosing import Candidate, last
from retrain.evaluation.document import Evidence, document
from retrain.evaluation.heldout import HeldOut
from retrain.evaluation.writing import Written
from retrain.models.pen import Timed
from tests.conftest import REPOSITORY
from tests.support.lineage import Lineage, make_chunk

SCHEMA = json.loads((REPOSITORY / "docs" / "eval_results.schema.json").read_text())
OWN, BASE, STEP = "own", "base:base", "step-000010"


def valid(results: Any) -> None:
    """Raises where ``eval_results.json`` would not keep its schema."""
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(results)))


@pytest.fixture
def request_(tmp_path: Path) -> RunRequest:
    lineage = Lineage.at(tmp_path)
    lineage.close([make_chunk("t", 0)])
    return lineage.request()


def evidence(request: RunRequest, *, worse: float = 0.0, threads: int = 12) -> Evidence:
    """Planted: on each reply this run is ``worse`` than the base by so many nats per token, given found mail."""
    own = request.adapter_id
    sample = {f"c{i}": HeldOut(f"c{i}", f"t{i}", 0, Split.VAL, 0) for i in range(threads)}
    names = ((own, STEP, worse), (BASE, "", 0.0))
    losses = [Loss(name, step, chunk, "val", 30.0, 10, 40, 2) for name, step, _ in names for chunk in sample]
    replies = [
        ReplyLoss(name, step, f"m{i}", f"t{i}", "val", what, (), f"{i}{what}", 10 * (3 + i % 5 + more), 10, 2)
        for name, step, more in names
        for i in range(threads)
        for what in Given
    ]
    written = [
        Written(name, step, f"m{i}", f"t{i}", "val", f"d{i}", 8, "so be it", 0.1 * i, 0.0, 0.0, 0.2, None)
        for name, step, _ in names
        for i in range(4)
    ]
    choice = last([Candidate(STEP, 10, {"ppl": 20.0})], "val_loss")
    return Evidence(losses, replies, written, sample, {Split.VAL: 1}, [], [], choice)


def told(results: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in results["gate_evidence"] if one["name"] == name)


def test_it_keeps_its_schema_and_says_why_a_figure_is_absent(request_: RunRequest) -> None:
    results = document(request_, evidence(request_), choosing=False)
    valid(results)
    own, base = results["summary"]
    assert (own["role"], own["chosen"], base["role"], base["chosen"]) == ("run", True, "base", False)
    assert own["rag_gain_at_k"]["n"] == 12 and own["val_perplexity"]["value"] == pytest.approx(20.0855, abs=1e-4)
    assert own["rag_accuracy_at_k"] == {
        "value": pytest.approx(0.15),
        "n": 4,
        "ci_low": 0.0,
        "few": True,
        "ci_high": own["rag_accuracy_at_k"]["ci_high"],
    }
    reasons = {one["metric"]: one["reason"] for one in own["absent"]}
    assert set(reasons) == {"test_perplexity", "retrieval_recall_at_k"}
    (entry, _) = results["checkpoints"]
    assert entry["n_replies"] == 12 and entry["n_replies_too_long"] == 1
    absent = {one["metric"]: one["reason"] for one in entry["absent"]}
    assert absent["repetition"] == "what was written is too short for it"
    assert absent["answer_p95"] == "eval.latency is 0"
    exact = next(one for one in entry["metrics"] if one["metric"] == "rag_exact@3")
    assert (exact["value"], exact["ci_low"], exact["ci_high"]) == (0.0, None, None), "alike is not certain"


def test_without_replies_every_figure_of_them_is_absent_and_none_is_nought(request_: RunRequest) -> None:
    bare = replace(evidence(request_), replies=[], written=[])
    results = document(request_, bare, choosing=False)
    valid(results)
    for entry in results["checkpoints"]:
        assert {one["metric"] for one in entry["metrics"]} == {"nats_per_token", "perplexity", "bits_per_byte"}
        assert len(entry["absent"]) >= 13 and all(one["reason"] for one in entry["absent"])
    assert told(results, "rag")["figure"] is None and told(results, "rag")["reason"]


def test_what_the_gate_may_object_to_is_harm_and_rests_on_threads_that_did_not_choose(
    request_: RunRequest, tmp_path: Path
) -> None:
    planted = evidence(request_, worse=0.2)
    results = document(request_, planted, choosing=True)
    judging = [i for i in range(12) if not selects(f"t{i}")]
    rag = told(results, "rag")
    assert rag["figure"] == pytest.approx(0.2) and rag["n"] == len(judging) < 12
    assert told(document(request_, planted, choosing=False), "rag")["n"] == 12
    timed = [(Timed((1,), 0.1, 1.1 + 0.01 * (i % 3)), Timed((1,), 0.1, 1.0 + 0.01 * (i % 3))) for i in range(40)]
    settings = request_.settings.model_copy(update={"eval": request_.settings.eval.model_copy(update={"latency": 40})})
    slow = document(request_.model_copy(update={"settings": settings}), replace(planted, pairs=timed), choosing=False)
    valid(slow)
    latency = told(slow, "latency")
    assert latency["low"] > 0.05 and latency["figure"] == pytest.approx(1.12 / 1.02 - 1) and latency["n"] == 40
    path = tmp_path / "eval_results.json"
    path.write_text(json.dumps(slow))
    figures = {figure.name: figure for figure in read_figures(path)}
    assert figures["retrieval"].figure is None and "no adapter takes part" in figures["retrieval"].reason
    assert figures["latency"].figure == latency["figure"]
