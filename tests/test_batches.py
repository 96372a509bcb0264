"""What of a chunk the model sees: new text first, the border between read and predicted text kept, nothing invented."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import Split
from retrain.models.base import learn_tokenizer
from retrain.training.batches import (
    AS_WRITTEN,
    IGNORED,
    Example,
    Source,
    batches_of,
    collate,
    encode,
    groups_of_like_length,
)
from tests.support.mailroom import TINY, letters

CPU = torch.device("cpu")


@cache
def tokenizer() -> Any:
    return learn_tokenizer([chunk.text for chunk in letters(0) if chunk.split is Split.TRAIN], TINY)


@given(st.text(max_size=60), st.text(min_size=1, max_size=60), st.integers(2, 80))
def test_new_text_comes_first_and_the_newest_context_fills_the_rest(before: str, new: str, context: int) -> None:
    plain = tokenizer()
    (example,) = encode(plain, [Source("c", before + new, len(before))], context)
    old_ids = plain([before], **AS_WRITTEN)["input_ids"][0]
    new_ids = plain([new], **AS_WRITTEN)["input_ids"][0]
    assert len(example.ids) <= context
    assert example.ids[0] == plain.bos_token_id
    assert list(example.ids[example.label_from :]) == new_ids[: context - 1]
    read = list(example.ids[1 : example.label_from])
    assert read == old_ids[len(old_ids) - len(read) :]
    assert len(example.ids) == min(context, 1 + len(old_ids) + len(new_ids))


@given(st.text(min_size=1, max_size=80))
def test_bytes_are_those_of_the_predicted_text(new: str) -> None:
    (example,) = encode(tokenizer(), [Source("c", "Subject: x\n" + new, 11)], 1000)
    assert example.n_bytes == len(new.encode())


def test_cut_text_counts_only_the_bytes_that_are_predicted() -> None:
    (example,) = encode(tokenizer(), [Source("c", "boat sail mast " * 50, 0)], 20)
    spelled = tokenizer().decode(list(example.ids[example.label_from :]))
    assert example.n_labels == 19
    assert example.n_bytes == len(spelled.encode())


def test_a_mail_that_spells_a_control_token_does_not_control_anything() -> None:
    plain = tokenizer()
    (example,) = encode(plain, [Source("c", "<s> and <pad>", 0)], 100)
    assert plain.bos_token_id not in example.ids[1:]
    assert plain.pad_token_id not in example.ids


def test_labels_are_the_next_tokens_of_new_text_only() -> None:
    group = collate([Example("a", (0, 5, 6, 7), 2, 3), Example("b", (0, 9), 1, 1)], pad=1)
    assert group.ids.tolist() == [[0, 5, 6, 7], [0, 9, 1, 1]]
    assert group.columns.tolist() == [0, 1, 2], "from the last nothing is foretold"
    assert group.labels.tolist() == [[IGNORED, 6, 7], [9, IGNORED, IGNORED]]


@given(st.lists(st.integers(2, 50), min_size=1, max_size=30), st.integers(10, 200), st.randoms())
def test_groups_hold_everything_once_within_the_budget_whatever_the_order(
    lengths: list[int], budget: int, source: Any
) -> None:
    examples = [Example(f"c{place}", tuple(range(length)), 1, 0) for place, length in enumerate(lengths)]
    groups = groups_of_like_length(examples, budget)
    assert sorted(example.chunk_id for group in groups for example in group) == sorted(e.chunk_id for e in examples)
    assert all(len(group) == 1 or len(group[0].ids) * len(group) <= budget for group in groups)
    shuffled = source.sample(examples, len(examples))
    assert groups_of_like_length(shuffled, budget) == groups


def test_a_batch_stands_where_the_schedule_put_it_even_if_nothing_in_it_can_be_predicted() -> None:
    examples = {"a": Example("a", (0, 5), 1, 1), "b": Example("b", (0,), 1, 0)}
    batches = batches_of([(0, ["b"]), (0, ["a", "b"]), (1, ["a"])], examples)
    assert [[example.chunk_id for example in batch.examples] for batch in batches] == [[], ["a"], ["a"]]
    assert [batch.epoch for batch in batches] == [0, 0, 1]
