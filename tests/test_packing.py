"""Chunks that share a pass do not see each other: neither their losses nor their gradients depend on their company."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config.settings import ModelSettings, TrainSettings
from retrain.evaluation.nll import token_nll
from retrain.models.base import learn_tokenizer, new_network
from retrain.models.model import choose_compute, fresh_adapter, load_base
from retrain.training.batches import Example, collate
from tests.support.mailroom import TINY

COMPUTE = choose_compute(ModelSettings(dtype="float32"), 1)
SOURCE = random.Random(5)
PAD = 1


def example(name: str, length: int, label_from: int = 1) -> Example:
    return Example(name, tuple(SOURCE.randrange(2, 250) for _ in range(length)), label_from, 0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("base")
    torch.manual_seed(1)
    new_network(TINY, learn_tokenizer(["a word or two"], TINY)).save_pretrained(str(folder))
    train = TrainSettings(lora_r=4, lora_alpha=8)
    network = load_base(folder, COMPUTE, quantize=True)
    adapted = fresh_adapter(network, train, builtin=True, quantize=True, checkpointing=False, seed=2)
    with torch.no_grad():  # a fresh adapter changes nothing, so gradients of half of it would be zero
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.02)
    return adapted.train()


def first_loss(model: Any, group: list[Example]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The nats of the first chunk of a pass, and the gradients that they alone have."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    nats = token_nll(model, collate(group, PAD), COMPUTE)[0].sum()
    return nats.detach(), list(torch.autograd.grad(nats, trained))


def test_what_else_is_in_a_pass_changes_no_bit_of_a_chunk_s_loss(model: Any) -> None:
    first = example("first", 40, 11)
    company = [example("second", 33), example("third", 21, 5)]
    other = [replace(chunk, ids=example("", len(chunk.ids)).ids) for chunk in company]
    nats, gradients = first_loss(model, [first, *company])
    again, others = first_loss(model, [first, *other])
    assert torch.equal(nats, again)
    for one, two in zip(gradients, others, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)


def test_a_chunk_has_the_loss_that_it_has_alone_however_it_is_padded(model: Any) -> None:
    first = example("first", 25, 4)
    alone, gradients = first_loss(model, [first])
    padded, others = first_loss(model, [first, example("longer", 90)])
    torch.testing.assert_close(alone, padded, rtol=1e-5, atol=1e-5)
    assert any(float(gradient.abs().max()) > 1e-3 for gradient in gradients)
    for one, two in zip(gradients, others, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)


def test_text_after_a_token_does_not_reach_back(model: Any) -> None:
    first = example("first", 30)
    changed = replace(first, ids=(*first.ids[:20], *example("", 10).ids))
    one = token_nll(model, collate([first], PAD), COMPUTE)[0]
    two = token_nll(model, collate([changed], PAD), COMPUTE)[0]
    assert torch.equal(one[:19], two[:19]) and not torch.equal(one[19:], two[19:])
