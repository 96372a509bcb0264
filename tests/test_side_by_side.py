"""`mailtide runs compare`: planted differences are found, on common chunks only, whichever way round they are asked for."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.domain import Split
from pipeline.errors import NothingToDo, UsageError
from pipeline.store.rows import ExclusionRow, LossRow, MetricRow, RequestRow, RunEventRow
from registry.side_by_side import BITS_PER_BYTE, NATS_PER_TOKEN, compare_runs
from retrain.benchmarks.items import ITEMS, Item, write_items
from streams.cli.commands import carry_out
from tests.support.finished import SELECTED, Finished
from tests.support.lineage import MAILBOX


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Finished]:
    made = Finished.at(tmp_path / "home")
    yield made
    made.store.close()


def test_planted_differences_are_found_where_they_are(runs: Finished) -> None:
    first, _, _ = runs.step(new=-0.3)
    second, _, _ = runs.step(new=-0.2, old=0.05)
    found = compare_runs(runs.store, first.run_id, second.run_id)
    assert (found.first.adapter_id, found.second.adapter_id) == (first.adapter_id, second.adapter_id)
    assert (found.first.checkpoint, found.first.status, found.second.windows) == (SELECTED, "promoted", (1,))
    of = {(row.split, row.windows): row for row in found.paired}
    old = of["val", f"new in {first.run_id}"]
    assert old.unit == NATS_PER_TOKEN
    assert old.difference.value == pytest.approx(0.05, abs=0.03)
    assert old.difference.low < old.difference.value < old.difference.high
    assert old.difference.value == pytest.approx(old.second.value - old.first.value)
    assert old.difference.error < old.first.error / 2, "what a thread's own level adds to both cancels out"
    assert {split for split, _ in of} == {"val", "test"}
    held_out = [chunk for chunk in runs.chunks.values() if chunk.split is Split.VAL and chunk.window_idx == 0]
    assert (old.chunks, old.difference.n_clusters) == (len(held_out), len({chunk.thread_id for chunk in held_out}))
    back = {(row.split, row.windows): row for row in compare_runs(runs.store, second.adapter_id, first.adapter_id).paired}
    assert back["val", "all"].difference.value == pytest.approx(-of["val", "all"].difference.value)


def test_only_common_chunks_count_and_the_rest_is_told(runs: Finished) -> None:
    first, _, _ = runs.step(new=-0.3)
    second, _, _ = runs.step(new=-0.2)
    found = compare_runs(runs.store, first.run_id, second.run_id)
    measured = {
        name: {row.chunk_id for row in runs.store.fetch(LossRow, "adapter_id = ? AND checkpoint = ?", [name, SELECTED])}
        for name in (first.adapter_id, second.adapter_id)
    }
    ours, theirs = measured.values()
    chunks = sum(row.chunks for row in found.paired if row.windows == "all")
    assert chunks == len(ours & theirs) > 0
    assert found.unpaired == len(ours ^ theirs)


def test_what_is_excluded_by_now_is_left_out(runs: Finished) -> None:
    first, _, _ = runs.step()
    second, _, _ = runs.step()
    before = compare_runs(runs.store, first.run_id, second.run_id)
    chunk = next(chunk for chunk in runs.chunks.values() if chunk.split is Split.VAL and chunk.window_idx == 0)
    runs.store.append([ExclusionRow(MAILBOX, chunk.thread_id, None, "test", 0, runs.now)])
    after = compare_runs(runs.store, first.run_id, second.run_id)
    assert before.paired[0].chunks - after.paired[0].chunks == 2, "both chunks of the thread"


def test_another_tokenizer_is_compared_by_bytes(runs: Finished) -> None:
    runs.step()
    second, _, _ = runs.step(new=-0.2)
    rows = runs.store.fetch(LossRow, "adapter_id = ? AND checkpoint = ?", [second.adapter_id, SELECTED])
    other = "a-other-tokenizer"
    _copy_run(runs, second.run_id, other)
    runs.store.append(
        [
            LossRow(other, SELECTED, r.mailbox, r.chunk_id, r.split, r.nll, r.n_tokens + 1, r.n_bytes, r.eval_version)
            for r in rows
        ]
    )
    found = compare_runs(runs.store, second.run_id, other)
    assert {row.unit for row in found.paired} == {BITS_PER_BYTE}
    assert all(row.difference.value == 0 for row in found.paired)


def _copy_run(runs: Finished, run_id: str, adapter_id: str) -> None:
    (asked,) = runs.store.fetch(RequestRow, "run_id = ?", [run_id])
    events = runs.store.fetch(RunEventRow, "run_id = ?", [run_id])
    renamed = replace(asked, run_id=f"run-{adapter_id}", adapter_id=adapter_id)
    runs.store.append([renamed, *(replace(event, run_id=renamed.run_id) for event in events)])


def test_reported_figures_stand_side_by_side(runs: Finished) -> None:
    first, _, _ = runs.step()
    second, _, _ = runs.step()
    runs.store.append(
        [
            MetricRow(first.run_id, first.adapter_id, SELECTED, "val", None, None, "perplexity", 9.0, 16, 8.0, 10.0),
            MetricRow(second.run_id, second.adapter_id, SELECTED, "val", None, None, "perplexity", 8.0, 16, None, None),
            MetricRow(second.run_id, "bm25", "", "val", None, None, "recall@5", 0.5, 16, 0.4, 0.6),
            MetricRow(
                second.run_id, second.adapter_id, "step-000050", "val", None, None, "perplexity", 99.0, 16, None, None
            ),
        ]
    )
    found = {
        (row.split, row.metric): (row.first, row.second)
        for row in compare_runs(runs.store, first.run_id, second.run_id).reported
    }
    assert found == {
        ("val", "perplexity"): ((9.0, 8.0, 10.0), (8.0, None, None)),
        ("val", "recall@5"): (None, (0.5, 0.4, 0.6)),
    }


def test_what_cannot_be_compared_is_said(runs: Finished) -> None:
    first, _, _ = runs.step()
    with pytest.raises(UsageError, match="there is no run nowhere"):
        compare_runs(runs.store, first.run_id, "nowhere")
    runs.close_window()
    asked = runs.request()
    with pytest.raises(NothingToDo, match="no verdict yet"):
        compare_runs(runs.store, asked.run_id, first.run_id)


def test_the_command_tells_it(runs: Finished) -> None:
    first, _, _ = runs.step(new=-0.3)
    second, _, _ = runs.step(new=-0.2, old=0.5)
    runs.store.close()
    code, told = mailtide(runs, "runs", "compare", first.run_id, second.run_id)
    assert code == 0 and "first is better" in told and "second is better" in told
    code, told = mailtide(runs, "runs", "compare", first.run_id, second.run_id, "--json")
    document = json.loads(told)
    assert code == 0 and document["paired"][0]["ci_low"] < document["paired"][0]["difference"]
    assert mailtide(runs, "runs", "compare", first.run_id, "nowhere")[0] == 2


def mailtide(runs: Finished, *arguments: str) -> tuple[int, str]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = carry_out(["--home", str(runs.home.root), *arguments])
    return code, said.getvalue()


def test_benchmarks_that_both_runs_answered_are_paired_by_item(runs: Finished) -> None:
    made = [runs.step(new=-0.3)[0], runs.step(new=-0.2)[0]]
    for request, right in zip(made, (20, 17), strict=True):
        items = [
            Item(request.adapter_id, SELECTED, "sums", "acc", "d", "1", place, str(place), float(place < right), 1.0)
            for place in range(20)
        ]
        write_items(runs.home.run(request.run_id) / ITEMS, items)
    runs.store.close()
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert carry_out(["--home", str(runs.home.root), "runs", "compare", made[0].run_id, made[1].run_id, "--json"]) == 0
    told = json.loads(out.getvalue())["benchmarks"]
    assert told["points"] == pytest.approx(15.0) and told["n"] == 20
    assert [(task["task"], task["theirs"], task["ours"]) for task in told["tasks"]] == [("sums", 1.0, 0.85)]
