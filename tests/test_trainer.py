"""The training loop on a tiny model: what a step's loss is, what measuring leaves untouched, when it stops and fails."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.capacity.passes import CPU_PASS_TOKENS
from pipeline.config.settings import ModelSettings, TrainSettings
from pipeline.domain import Split
from pipeline.errors import RunError
from pipeline.runs.runfiles import Loss, read_losses
from retrain.evaluation.losses import EVAL_VERSION, losses_of, nats_of
from retrain.evaluation.nll import token_nll
from retrain.models.base import build
from retrain.models.loaded import Loaded
from retrain.models.model import BUILTIN_TARGETS, choose_compute, fresh_adapter, load_base, load_tokenizer
from retrain.training import checkpoints
from retrain.training.batches import Batch, Example, Source, collate, encode, groups_of_like_length
from retrain.training.checkpointing import Checkpointing
from retrain.training.metrics import StepRecord
from retrain.training.recipe import Recipe
from retrain.training.tracking import trackers
from retrain.training.trainer import Training, fit
from tests.support.mailroom import TINY, letters

COMPUTE = choose_compute(ModelSettings(), 1)
TRAIN = TrainSettings(lora_r=4, lora_alpha=8)
RECIPE = Recipe(
    lr=5e-3, warmup=0.1, weight_decay=0.0, clip=1.0, accumulation=1, optimizer="adamw_torch_fused", beta2=0.999, seed=1
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    build([chunk.text for chunk in letters(0)], TINY, 0, COMPUTE, folder, lambda record: None)
    return folder


@pytest.fixture(scope="module")
def examples(base: Path) -> list[Example]:
    chunks = [chunk for chunk in letters(1) if chunk.split is Split.TRAIN]
    sources = [Source(chunk.chunk_id, chunk.text, chunk.new_from) for chunk in chunks]
    return encode(load_tokenizer(base), sources, TINY.context)


def adapted(base: Path, *, quantize: bool = True) -> Any:
    model = load_base(base, COMPUTE, quantize=quantize)
    return fresh_adapter(model, TRAIN, builtin=True, quantize=quantize, checkpointing=False, seed=3)


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


def trained(
    model: Any, batches: list[Batch], folder: Path, recipe: Recipe = RECIPE, checkpointing: Checkpointing | None = None
) -> list[StepRecord]:
    records: list[StepRecord] = []
    fit(Training(Loaded(model, COMPUTE, 1), batches, recipe, folder, records.append, checkpointing))
    return records


def val_losses(model: Any, examples: list[Example], checkpoint: str) -> list[Loss]:
    splits = {example.chunk_id: "val" for example in examples}
    return losses_of(nats_of(Loaded(model, COMPUTE, 1), examples, 999), examples, splits, "a", checkpoint)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_an_adapter_does_not_depend_on_the_number_of_cores(
    dropout: float, base: Path, examples: list[Example], tmp_path: Path
) -> None:
    """Groups of a batch go side by side; a model that draws chance draws it in one order all the same."""
    batch = Batch(0, tuple(examples * 3))
    assert len(groups_of_like_length(batch.examples, CPU_PASS_TOKENS)) > 2
    ends = []
    for threads in (1, 3, 3):
        network = load_base(base, COMPUTE, quantize=True)
        recipe = TRAIN.model_copy(update={"lora_dropout": dropout})
        model = fresh_adapter(network, recipe, builtin=True, quantize=True, checkpointing=False, seed=3)
        records: list[StepRecord] = []
        loaded = Loaded(model, replace(COMPUTE, threads=threads), 1)
        fit(Training(loaded, [batch] * 3, RECIPE, tmp_path, records.append))
        ends.append(([record.loss for record in records], weights(model)))
    for losses, values in ends[1:]:
        assert losses == ends[0][0]
        for name, value in ends[0][1].items():
            assert torch.equal(values[name], value), name


def saving(folder: Path, score_model: Callable[[str], list[Loss]], **changes: Any) -> Checkpointing:
    given = {"every": 2, "keep": 5, "selecting": None, "patience": 0, "min_delta": 0.0, **changes}
    return Checkpointing(folder=folder, base_id="b", score=score_model, **given)


def pairs(examples: list[Example]) -> list[Batch]:
    return [Batch(0, tuple(examples[first : first + 2])) for first in range(0, 12, 2)]


def test_every_linear_layer_of_the_builtin_model_is_trained_the_head_included(base: Path) -> None:
    names = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in weights(adapted(base))}
    assert names == set(BUILTIN_TARGETS)


def test_any_field_of_the_adapters_configuration_can_be_set(base: Path) -> None:
    def fresh(**lora: Any) -> Any:
        train = TRAIN.model_copy(update={"lora": lora})
        network = load_base(base, COMPUTE, quantize=False)
        return fresh_adapter(network, train, builtin=True, quantize=False, checkpointing=False, seed=3)

    model = fresh(use_rslora=True, target_modules=["q_proj"])
    assert {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in weights(model)} == {"q_proj"}
    assert next(iter(model.base_model.model.model.layers)).self_attn.q_proj.scaling["default"] == 8 / 4**0.5
    with pytest.raises(RunError, match="not what PEFT's LoraConfig takes"):
        fresh(rank=4)
    with pytest.raises(RunError, match="r, which have settings of their own"):
        fresh(r=4)


def test_the_loss_falls(base: Path, examples: list[Example], tmp_path: Path) -> None:
    records = trained(adapted(base), pairs(examples) * 3, tmp_path)
    assert [record.step for record in records] == list(range(1, 19))
    assert sum(r.loss for r in records[-6:]) < sum(r.loss for r in records[:6]) - 3
    assert records[-1].tokens == 3 * sum(len(example.ids) for example in examples[:12])


def test_a_step_weighs_tokens_alike_however_batches_are_cut(base: Path, examples: list[Example], tmp_path: Path) -> None:
    apart, together = adapted(base, quantize=False), adapted(base, quantize=False)
    two = Recipe(**{**{name: getattr(RECIPE, name) for name in Recipe.__slots__}, "accumulation": 2})
    some = sorted(examples, key=lambda example: len(example.ids))
    short, long = some[:1], some[-3:]
    one = trained(together, [Batch(0, (*short, *long))], tmp_path / "a")
    other = trained(apart, [Batch(0, tuple(short)), Batch(0, tuple(long))], tmp_path / "b", two)
    assert [record.loss for record in one] == pytest.approx([record.loss for record in other], rel=1e-3)
    for name, value in weights(together).items():
        torch.testing.assert_close(weights(apart)[name], value, rtol=0.05, atol=2e-3)


@pytest.mark.parametrize("clip", [0.0, 1e-3])
def test_the_norm_of_the_gradient_is_noted_before_it_is_clipped(
    clip: float, base: Path, examples: list[Example], tmp_path: Path
) -> None:
    model = adapted(base, quantize=False)
    before = weights(model)
    batch = Batch(0, tuple(examples[:2]))
    (record,) = trained(model, [batch], tmp_path, replace(RECIPE, clip=clip, warmup=0.0, lr=1e-9))
    for name, value in model.named_parameters():
        if value.requires_grad:
            value.data.copy_(before[name])
    model.train()
    nats = torch.stack([token_nll(model, collate([one], 1), COMPUTE).sum() for one in batch.examples]).sum()
    torch.autograd.backward(nats / batch.n_labels)
    squares = [float(value.grad.pow(2).sum()) for value in model.parameters() if value.grad is not None]
    assert record.grad_norm == pytest.approx(math.sqrt(sum(squares)), rel=0.02)
    assert sum(squares) > 1e-4


def test_a_gradient_that_is_no_number_names_the_chunks_and_ruins_nothing(
    base: Path, examples: list[Example], tmp_path: Path
) -> None:
    model = adapted(base)
    some = next(value for value in model.parameters() if value.requires_grad)
    plan = saving(tmp_path, lambda name: [], every=1)

    def burst(record: StepRecord) -> None:
        if record.step == 2:
            some.register_hook(lambda gradient: gradient * float("inf"))

    with pytest.raises(RunError, match=f"gradient is (nan|inf) at step 3, on chunks {examples[4].chunk_id}, "):
        fit(Training(Loaded(model, COMPUTE, 1), pairs(examples), RECIPE, tmp_path, burst, plan))
    assert all(bool(torch.isfinite(value).all()) for value in weights(model).values())
    whole = checkpoints.newest_whole(tmp_path)
    assert whole is not None and whole.step == 2


def test_measuring_between_steps_changes_nothing(base: Path, examples: list[Example], tmp_path: Path) -> None:
    """On CPUs with AVX512-BF16, 4-bit layers used to be repacked for good by the first forward pass in eval mode."""
    measured, plain = adapted(base), adapted(base)

    def measure(name: str) -> list[Loss]:
        return val_losses(measured, examples[:4], name)

    trained(measured, pairs(examples), tmp_path / "a", checkpointing=saving(tmp_path / "a", measure))
    trained(plain, pairs(examples), tmp_path / "b")
    for name, value in weights(plain).items():
        assert torch.equal(weights(measured)[name], value), name
    assert [checkpoint.name for checkpoint in checkpoints.find(tmp_path / "a")] == [
        "step-000002",
        "step-000004",
        "step-000006",
    ]


def rising(steps: list[float]) -> Callable[[str], list[Loss]]:
    """Losses as told, one per checkpoint."""
    told = iter(steps)
    return lambda name: [Loss("a", name, "c", "val", next(told), 1, 1, EVAL_VERSION)]


def test_it_stops_when_the_selecting_half_has_not_improved_and_keeps_the_best(
    base: Path, examples: list[Example], tmp_path: Path
) -> None:
    batches = pairs(examples) * 2
    plan = saving(
        tmp_path, rising([3.0, 2.0, 2.5, 2.4, 2.3]), every=1, keep=1, selecting=frozenset({"c"}), patience=2
    )  # fmt: skip
    assert len(trained(adapted(base), batches, tmp_path, checkpointing=plan)) == 4
    found = checkpoints.find(tmp_path)
    assert [(checkpoint.step, checkpoint.resumable) for checkpoint in found] == [
        (1, False),
        (2, True),
        (3, False),
        (4, True),
    ]
    assert trained(adapted(base), batches, tmp_path, checkpointing=plan) == []  # a restart does not go on


def test_a_half_written_checkpoint_is_removed_and_training_goes_on_from_a_whole_one(
    base: Path, examples: list[Example], tmp_path: Path
) -> None:
    whole = saving(tmp_path / "whole", lambda name: [])
    reference = adapted(base)
    trained(reference, pairs(examples), tmp_path / "whole", checkpointing=whole)
    assert checkpoints.newest_whole(tmp_path / "whole") == checkpoints.Checkpoint(6, tmp_path / "whole" / "step-000006")
    for path in (tmp_path / "whole" / "step-000006").iterdir():
        path.unlink()
    (tmp_path / "whole" / "step-000006").rename(tmp_path / "whole" / ".partial")
    again = adapted(base)
    records = trained(again, pairs(examples), tmp_path / "whole", checkpointing=whole)
    assert [record.step for record in records] == [5, 6]
    for name, value in weights(reference).items():
        assert torch.equal(weights(again)[name], value), name
    assert not (tmp_path / "whole" / ".partial").exists()


def test_a_tracker_hears_the_losses(base: Path, examples: list[Example], tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    model = adapted(base)

    def measure(name: str) -> list[Loss]:
        return val_losses(model, examples[:4], name)

    records: list[StepRecord] = []
    fit(
        Training(
            Loaded(model, COMPUTE, 1),
            pairs(examples),
            RECIPE,
            tmp_path,
            records.append,
            saving(tmp_path / "checkpoints", measure),
            trackers=trackers(("tensorboard",), tmp_path, "0a", 0),
        )
    )
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    told = events.Scalars("train/loss")
    assert [(event.step, event.value) for event in told] == [(r.step, pytest.approx(r.loss, rel=1e-5)) for r in records]
    norms = [event.value for event in events.Scalars("train/grad_norm")]
    assert norms == pytest.approx([record.grad_norm for record in records], rel=1e-5)
    on_val = {event.step: event.value for event in events.Scalars("eval/loss")}
    for checkpoint in checkpoints.find(tmp_path / "checkpoints"):
        losses = read_losses(checkpoint.folder / checkpoints.LOSSES)
        mean = sum(loss.nll for loss in losses) / sum(loss.n_tokens for loss in losses)
        assert on_val.pop(checkpoint.step) == pytest.approx(mean, rel=1e-5)
    assert on_val == {}
    assert 'log_history": []' in (tmp_path / "checkpoints" / "step-000006" / "trainer_state.json").read_text()


def test_nobody_is_told_unless_asked(tmp_path: Path) -> None:
    assert TrainSettings().report_to == ()
    assert trackers((), tmp_path, "0a", 0) == []
    assert list(tmp_path.iterdir()) == []


def test_weights_that_a_gradient_has_ruined_are_never_a_checkpoint(
    base: Path, examples: list[Example], tmp_path: Path
) -> None:
    """The loss of a step is told before its gradient is taken: weights can be ruined although it was a number."""
    model = adapted(base)
    plan = saving(tmp_path, lambda name: [], every=1)

    def ruin(record: StepRecord) -> None:
        if record.step == 3:
            with torch.no_grad():
                next(value for value in model.parameters() if value.requires_grad)[0, 0] = float("inf")

    with pytest.raises(
        RunError, match=f"not finite after step 3, on chunks {examples[4].chunk_id}, {examples[5].chunk_id}"
    ):
        fit(Training(Loaded(model, COMPUTE, 1), pairs(examples), RECIPE, tmp_path, ruin, plan))
    whole = checkpoints.newest_whole(tmp_path)
    assert whole is not None and whole.step == 2


def test_a_loss_that_is_no_number_names_the_chunks(base: Path, examples: list[Example], tmp_path: Path) -> None:
    model = adapted(base)
    with torch.no_grad():
        next(iter(value for value in model.parameters() if value.requires_grad)).fill_(float("nan"))
    with pytest.raises(RunError, match=f"loss is nan at step 1, on chunks {examples[0].chunk_id}"):
        trained(model, pairs(examples), tmp_path)
