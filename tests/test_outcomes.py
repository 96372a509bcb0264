"""From a figure of a run to the replies, questions and chunks behind it, by SQL alone."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.domain import Split
from pipeline.home import write_atomic
from pipeline.parquet import write_table
from pipeline.runs.questionfile import QUESTIONS, Question, read_questions, write_questions
from pipeline.runs.replyfiles import REPLIES, Given, ReplyLoss, write_reply_losses
from pipeline.store.people_sql import run_people_sql
from registry.outcomes import WRITTEN
from retrain.evaluation.rag import reply_figures
from retrain.evaluation.results import metric_of, retrieval_entry
from retrain.search.bm25 import Bm25Index
from retrain.search.gold import Mail
from retrain.search.retrieval import evaluate_index
from tests.support.finished import SELECTED, Finished

GAIN = """
    SELECT sum(plain.nll - helped.nll) / sum(plain.n_tokens) AS gain, count(*) AS n
    FROM replies AS plain JOIN replies AS helped USING (run_id, adapter_id, checkpoint, message_key, n_tokens)
    WHERE plain.given = 'nothing' AND helped.given = 'retrieved' AND plain.run_id = '{run_id}'
      AND plain.adapter_id = '{adapter_id}' AND plain.checkpoint = '{checkpoint}' AND plain.split = 'val'
"""

CHUNKS = """
    SELECT DISTINCT r.message_key, a.chunk_id, a.split
    FROM replies AS r, assignments AS a
    WHERE list_contains(a.message_keys, r.message_key) AND r.run_id = '{run_id}' AND a.mailbox = r.mailbox
"""

RECALL = """
    SELECT avg(coalesce(rank <= 5, false)::INTEGER) AS recall, avg(coalesce(1 / rank, 0)) AS mrr, avg(ndcg) AS ndcg,
           count(*) AS n
    FROM questions WHERE run_id = '{run_id}' AND split = 'val'
"""


@pytest.fixture
def decided(tmp_path: Path) -> tuple[Finished, str, dict[str, object]]:
    """A decided run whose replies and questions were measured; and its ``eval_results.json``."""
    runs = Finished.at(tmp_path)
    runs.close_window()
    asked = runs.request()
    result = runs.finish(asked, new=-0.2)
    folder = runs.home.run(asked.run_id)
    dice = random.Random(5)
    val = [chunk for chunk in runs.chunks.values() if chunk.split is Split.VAL]
    losses = [
        ReplyLoss(
            adapter_id=asked.adapter_id,
            checkpoint=SELECTED,
            message_key=chunk.message_keys[0],
            thread_id=chunk.thread_id,
            split="val",
            given=given.value,
            mails=(),
            read_sha256=f"{chunk.chunk_id}/{given}",
            nll=dice.uniform(50, 400),
            n_tokens=20 + 7 * place,
            eval_version=1,
        )
        for place, chunk in enumerate(val)
        for given in Given
    ]
    mails = [
        Mail(f"k{n}", n, f"k{n - 1}" if n % 3 else None, f"t{n // 3}", Split.VAL, f"clock {n % 7}", f"word{n} clock")
        for n in range(30)
    ]  # fmt: skip
    found = evaluate_index(
        Bm25Index.build((mail.key, mail.ordinal, mail.document) for mail in mails), mails, Split.VAL, 100
    )
    scores = {"rouge_l": 0.25, "bleu": 0.1, "exact": 0.0, "f1": 0.5, "repetition": None}
    named = {"adapter_id": asked.adapter_id, "checkpoint": SELECTED, "thread_id": val[0].thread_id, "split": "val"}
    written = {**named, "message_key": val[0].message_keys[0], "tokens": 24, "text": "not for the store", **scores}
    figures = [metric_of(name, interval) for name, interval in reply_figures(losses).items()]
    own = {"adapter_id": asked.adapter_id, "checkpoint": SELECTED, "split": "val", "metrics": figures}
    results: dict[str, object] = {"version": 2, "checkpoints": [own, retrieval_entry(found, Split.VAL)]}
    write_reply_losses(folder / REPLIES, losses)
    write_questions(folder / QUESTIONS, found.questions)
    write_table(folder / WRITTEN, pa.Table.from_pylist([written, written]))
    write_atomic(folder / "eval_results.json", json.dumps(results).encode())
    runs.decide(asked, result)
    return runs, asked.run_id, results


def told(runs: Finished, sql: str, **names: str) -> dict[str, object]:
    answer = run_people_sql(runs.store, sql.format(**names))
    (row,) = answer.rows
    return dict(zip(answer.columns, row, strict=True))


def figure(results: dict[str, object], split_entry: int, name: str) -> dict[str, object]:
    metrics = results["checkpoints"][split_entry]["metrics"]  # type: ignore[index]
    return next(metric for metric in metrics if metric["metric"] == name)


def test_a_gain_is_what_its_replies_say(decided: tuple[Finished, str, dict[str, object]]) -> None:
    runs, run_id, results = decided
    said = figure(results, 0, "rag_gain")
    with runs.store:
        again = told(runs, GAIN, run_id=run_id, adapter_id=f"a{run_id}", checkpoint=SELECTED)
        stored = told(runs, "SELECT value, n FROM metrics WHERE metric = 'rag_gain' AND run_id = '{run_id}'", run_id=run_id)
        behind = run_people_sql(runs.store, CHUNKS.format(run_id=run_id)).rows
    assert again["gain"] == pytest.approx(said["value"], abs=1e-12) == pytest.approx(stored["value"], abs=1e-12)
    assert again["n"] == said["n"] == stored["n"]
    held_out = {
        (chunk.message_keys[0], chunk.chunk_id, "val") for chunk in runs.chunks.values() if chunk.split is Split.VAL
    }
    assert set(behind) == held_out


def test_retrieval_figures_are_what_the_questions_found(decided: tuple[Finished, str, dict[str, object]]) -> None:
    runs, run_id, results = decided
    with runs.store:
        again = told(runs, RECALL, run_id=run_id)
    for name, metric in (("recall", "recall@5"), ("mrr", "mrr"), ("ndcg", "ndcg@10")):
        said = figure(results, 1, metric)
        assert again[name] == pytest.approx(said["value"], abs=1e-12), metric
        assert again["n"] == said["n"]
        assert float(str(said["value"])) > 0
    assert float(str(figure(results, 1, "mrr")["value"])) < 1


def test_scores_of_what_was_written_are_there_and_its_text_is_not(decided: tuple[Finished, str, dict[str, object]]) -> None:
    runs, run_id, _ = decided
    with runs.store:
        row = told(runs, "SELECT * FROM written WHERE run_id = '{run_id}'", run_id=run_id)
        assert (row["rouge_l"], row["repetition"], row["n_tokens"]) == (0.25, None, 24)
        assert "text" not in row
    assert b"not for the store" not in runs.home.store.read_bytes()


def test_a_run_of_an_older_version_has_no_such_rows(tmp_path: Path) -> None:
    runs = Finished.at(tmp_path)
    with runs.store:
        asked, _, decision = runs.step()
        assert decision.status == "promoted"
        count = (
            "SELECT (SELECT count(*) FROM replies) + (SELECT count(*) FROM written) + (SELECT count(*) FROM questions) AS n"
        )
        assert told(runs, count, run_id=asked.run_id) == {"n": 0}


def test_a_question_whose_answer_was_not_found_has_no_rank(tmp_path: Path) -> None:
    path = tmp_path / QUESTIONS
    asked = [Question("k1", "t", "val", "k0", ("k9",), None, 0.0), Question("k2", "t", "test", "k1", ("k1",), 1, 1.0)]
    write_questions(path, asked)
    assert read_questions(path) == asked
    assert read_questions(tmp_path / "none") == []
