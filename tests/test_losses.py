"""The frozen sample is nested, a loss does not depend on its company, and figures follow from losses."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.settings import ModelSettings
from pipeline.domain import Split
from pipeline.runs.runfiles import Exclusions, Loss
from retrain.evaluation.heldout import SCHEMA, HeldOut, frozen_sample, held_out_chunks, val_threads
from retrain.evaluation.losses import EVAL_VERSION, nats_of
from retrain.evaluation.results import cells, entries
from retrain.models.base import learn_tokenizer, new_network
from retrain.models.loaded import Loaded
from retrain.models.model import choose_compute
from retrain.training.batches import Source, encode
from retrain.training.early_stopping import Scored, best_step, mean_loss, should_stop
from tests.support.mailroom import TINY, Mailroom, letters


def held_out(count: int, windows: int = 5) -> list[HeldOut]:
    return [
        HeldOut(f"c{i}", f"t{i // 2}", i * windows // count, Split.VAL if i % 3 else Split.TEST, 0) for i in range(count)
    ]


def table_of(chunks: list[HeldOut]) -> pa.Table:
    return pa.Table.from_pylist([asdict(chunk) for chunk in chunks], schema=SCHEMA)


@given(st.integers(1, 60), st.integers(0, 60), st.integers(1, 20))
def test_what_leaves_the_sample_does_not_come_back(older: int, newer: int, most: int) -> None:
    chunks = held_out(older + newer)
    before = {chunk.chunk_id for chunk in frozen_sample(table_of(chunks[:older]), (), most)}
    after = {chunk.chunk_id for chunk in frozen_sample(table_of(chunks), (), most)}
    old = {chunk.chunk_id for chunk in chunks[:older]}
    assert after & old <= before


def test_new_windows_are_measured_whole_and_the_rest_within_the_cap() -> None:
    chunks = held_out(100)
    sample = frozen_sample(table_of(chunks), {4}, 10)
    new = {chunk.chunk_id for chunk in chunks if chunk.window_idx == 4}
    assert new <= {chunk.chunk_id for chunk in sample}
    assert len(sample) <= len(new) + 20
    assert [chunk.split for chunk in sample] == sorted((chunk.split for chunk in sample), reverse=True)


def test_excluded_and_trained_chunks_are_never_held_out(tmp_path: Path) -> None:
    room = Mailroom(tmp_path)
    room.close()
    request = room.ask()
    every = held_out_chunks(room.home, request, Exclusions())
    held = {chunk.thread_id: chunk.split for chunk in letters(0) if chunk.split is not Split.TRAIN}
    assert set(every["thread_id"].to_pylist()) == set(held)
    assert val_threads(every) == {thread for thread, split in held.items() if split is Split.VAL}
    gone = every["thread_id"][0].as_py()
    left = held_out_chunks(room.home, request, Exclusions(threads=frozenset({gone})))
    assert set(left["thread_id"].to_pylist()) == set(held) - {gone}


def test_a_loss_depends_neither_on_its_company_nor_on_the_number_of_cores() -> None:
    import torch

    chunks = letters(0)
    tokenizer = learn_tokenizer([chunk.text for chunk in chunks], TINY)
    torch.manual_seed(0)
    network = new_network(TINY, tokenizer)
    compute = choose_compute(ModelSettings(), 1)
    examples = encode(tokenizer, [Source(c.chunk_id, c.text, c.new_from) for c in chunks], TINY.context)

    def measured(some: list[int], threads: int = 1, batch_tokens: int = 9_999) -> dict[str, float]:
        loaded = Loaded(network, replace(compute, threads=threads), pad=1)
        return nats_of(loaded, [examples[i] for i in some], batch_tokens)

    together = measured(list(range(len(examples))))
    assert len(together) == len(examples)
    alone = measured([3])
    assert alone == {examples[3].chunk_id: together[examples[3].chunk_id]}
    assert measured([3, 0, 7])[examples[3].chunk_id] == alone[examples[3].chunk_id]
    everything = list(range(len(examples)))
    assert measured(everything, threads=3) == together
    assert measured(everything, threads=3, batch_tokens=1) == together, "a bound below one chunk still measures it"
    nats = sum(together.values()) / sum(example.n_labels for example in examples)
    assert nats == pytest.approx(math.log(TINY.vocabulary), rel=0.05)  # untrained weights know nothing


def loss_of(chunk: HeldOut, nll: float, checkpoint: str = "step-000010") -> Loss:
    return Loss("a1", checkpoint, chunk.chunk_id, chunk.split.value, nll, 10, 40, EVAL_VERSION)


def test_figures_follow_from_losses() -> None:
    sample = {chunk.chunk_id: replace(chunk, split=Split.VAL) for chunk in held_out(100)}
    found = entries([loss_of(chunk, 20.0 + chunk.window_idx) for chunk in sample.values()], sample)
    (entry,) = found
    whole = {metric["metric"]: metric for metric in entry["metrics"] if "window_from" not in metric}
    assert whole["nats_per_token"]["value"] == pytest.approx(2.2)
    assert whole["perplexity"]["value"] == pytest.approx(math.exp(2.2))
    assert whole["bits_per_byte"]["value"] == pytest.approx(22 / math.log(2) / 40)
    assert whole["nats_per_token"]["ci_low"] < 2.2 < whole["nats_per_token"]["ci_high"]
    assert (entry["n_chunks"], entry["n_threads"], entry["n_tokens"]) == (100, 50, 1000)
    table = [m for m in entry["metrics"] if "window_from" in m and m["metric"] == "nats_per_token"]
    assert [(m["window_from"], m["window_to"], m["n"]) for m in table] == [(w, w, 20) for w in range(5)]
    assert [m["value"] for m in table] == pytest.approx([2.0, 2.1, 2.2, 2.3, 2.4])


@given(st.lists(st.integers(0, 30), min_size=1, max_size=200))
def test_cells_hold_every_window_once_and_enough_chunks(windows: list[int]) -> None:
    ranges = cells(windows)
    assert all(sum(first <= window <= last for first, last in ranges) == 1 for window in windows)
    sizes = [sum(first <= window <= last for window in windows) for first, last in ranges]
    assert all(size >= 20 for size in sizes) or len(sizes) == 1


def test_choice_and_stop_follow_from_the_whole_history() -> None:
    falling = [Scored(10, 3.0), Scored(20, 2.5), Scored(30, 2.6), Scored(40, 2.5)]
    assert best_step(falling) == 20
    assert best_step([]) is None
    assert should_stop(falling, 2, 0.0)
    assert not should_stop(falling, 3, 0.0)
    assert not should_stop(falling[:3], 2, 0.0)
    assert should_stop(falling[:2], 1, 0.6)
    assert not should_stop(falling, 0, 0.0)
    chunk, other = held_out(2)
    assert mean_loss([loss_of(chunk, 30.0), loss_of(other, 10.0)], {chunk.chunk_id}) == 3.0
    assert mean_loss([loss_of(chunk, 30.0)], {"unknown"}) is None
