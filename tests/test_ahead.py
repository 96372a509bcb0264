"""The next batch made while the present one is used: nothing but time is different, and no thread outlives its training."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.capacity.passes import Change, Passes
from pipeline.config.settings import ModelSettings, TrainSettings
from retrain.models.base import learn_tokenizer, new_network
from retrain.models.loaded import Loaded
from retrain.models.model import choose_compute, fresh_adapter, load_base
from retrain.training.ahead import made_ahead
from retrain.training.batches import Batch, Example
from retrain.training.metrics import StepRecord
from retrain.training.recipe import Recipe
from retrain.training.trainer import ScheduleTrainer, Training, fit, passes_at
from tests.support.mailroom import TINY

COMPUTE = choose_compute(ModelSettings(), 1)
RECIPE = Recipe(
    lr=5e-3, warmup=0.1, weight_decay=0.0, clip=1.0, accumulation=2, optimizer="adamw_torch_fused", beta2=0.999, seed=1
)
PATIENCE = 60.0


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("next-batch")] == []


def test_each_is_made_once_and_just_the_next_one_ahead() -> None:
    made: list[int] = []
    begun = [threading.Event() for _ in range(4)]

    def make(place: int) -> int:
        made.append(place)
        begun[place].set()
        return 10 * place

    with made_ahead(make, 4) as get:
        assert get(0) == 0
        assert begun[1].wait(PATIENCE), "made although nobody has asked for it"
        assert made == [0, 1]
        assert [get(place) for place in (1, 2, 3)] == [10, 20, 30]
    assert made == [0, 1, 2, 3]


def test_a_training_that_goes_on_begins_in_the_middle() -> None:
    with made_ahead(str, 9) as get:
        assert [get(place) for place in (5, 6, 2, 3)] == ["5", "6", "2", "3"]


def test_what_cannot_be_made_is_told_to_who_asks_for_it_and_nobody_before() -> None:
    tried = threading.Event()
    wrong = ValueError("of two")

    def make(place: int) -> int:
        if place == 2:
            tried.set()
            raise wrong
        return place

    with made_ahead(make, 4) as get:
        assert [get(0), get(1)] == [0, 1]
        assert tried.wait(PATIENCE)
        with pytest.raises(ValueError, match="of two") as told:
            get(2)
        assert told.value is wrong


def test_the_thread_ends_with_whoever_uses_it() -> None:
    prepared: list[str] = []
    with pytest.raises(KeyError), made_ahead(str, 2, lambda: prepared.append(threading.current_thread().name)) as get:
        get(0)
        raise KeyError
    assert len(prepared) == 1 and prepared != [threading.current_thread().name]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tokenizer = learn_tokenizer(["a mail about a boat and a harbour"], TINY)
    tokenizer.save_pretrained(str(folder))
    torch.manual_seed(0)
    new_network(TINY, tokenizer).save_pretrained(str(folder))
    return folder


def examples_of(batch: int) -> tuple[Example, ...]:
    lengths = (5, 40 + batch, 90, 17 * (batch % 3) + 3)
    return tuple(
        Example(f"c{batch}-{row}", tuple(2 + (7 * batch + row + place) % 200 for place in range(length)), 1 + row, length)
        for row, length in enumerate(lengths)
    )


BATCHES = [Batch(0, examples_of(batch)) for batch in range(5)]


def training(base: Path, folder: Path, batches: list[Batch]) -> tuple[Training, list[StepRecord]]:
    records: list[StepRecord] = []
    model = fresh_adapter(
        load_base(base, COMPUTE, quantize=True),
        TrainSettings(lora_r=4, lora_alpha=8),
        builtin=True,
        quantize=True,
        checkpointing=False,
        seed=3,
    )
    passes = Passes(200, (Change(after_step=1, tokens=120),))
    return Training(Loaded(model, COMPUTE, 1), batches, RECIPE, folder, records.append, passes=passes), records


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}


def test_no_bit_of_a_training_depends_on_it(base: Path, tmp_path: Path) -> None:
    ahead, of_ahead = training(base, tmp_path, BATCHES)
    fit(ahead)
    asked, of_asked = training(base, tmp_path, BATCHES)
    with COMPUTE.lanes(1) as lanes:
        ScheduleTrainer(asked, lanes, lambda place: passes_at(asked, place)).train()
    assert [replace(one, seconds=0.0) for one in of_ahead] == [replace(one, seconds=0.0) for one in of_asked]
    assert len(of_ahead) == 3
    for name, value in weights(asked.loaded.model).items():
        assert torch.equal(weights(ahead.loaded.model)[name], value), name
    assert ahead.clock.seconds["data"] > 0


def test_passes_are_of_the_size_that_is_due_at_their_step(base: Path, tmp_path: Path) -> None:
    asked, _ = training(base, tmp_path, BATCHES)
    sizes = [[tuple(group.ids.shape) for group in passes_at(asked, place) if group is not None] for place in (1, 2)]
    assert max(rows * length for rows, length in sizes[0]) > 120 >= max(rows * length for rows, length in sizes[1])


def test_a_batch_that_cannot_become_tensors_ends_the_training_at_its_own_step(base: Path, tmp_path: Path) -> None:
    broken = Batch(0, (Example("c", (1, 1 << 80, 2), 1, 3),))
    doomed, records = training(base, tmp_path, [*BATCHES[:4], broken])
    with pytest.raises(ValueError, match="Overflow"):
        fit(doomed)
    assert [record.step for record in records] == [1, 2], "two batches a step: both steps before it were made"
