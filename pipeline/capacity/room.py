"""Whether a run fits the memory of the device that trains, and if not, which settings would make it fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

from pipeline.capacity.footprint import Device, Footprint, Load, Training, footprint
from pipeline.capacity.passes import CPU_PASS_TOKENS, halved
from pipeline.capacity.shapes import Shape
from pipeline.config.settings import EvalSettings, ModelSettings, TrainSettings

LEAST_CONTEXT, LEAST_RANK = 256, 8
"""Below these a setting is no cure but another experiment."""


Changes = dict[str, object]


class Fit(Enum):
    """Whether a run fits."""

    WHOLE = "fits"
    SMALLER = "fits in smaller passes"
    NOT = "cannot fit"


@dataclass(frozen=True, slots=True)
class Room:
    """``needed`` bytes (their parts in ``parts``) of the ``memory`` of ``device``. ``changes`` are settings under which the
    run fits: passes that hold less where the batches are too large, others where a single chunk is, and none where nothing
    helps or nothing need be changed. ``then`` are the bytes needed with them."""

    device: str
    memory: int
    fit: Fit
    needed: int
    parts: Footprint
    changes: tuple[str, ...]
    then: int | None


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of a run by the model's own tokenizer: of its largest batch, padding included, and of its longest chunk."""

    batch: int
    chunk: int


@dataclass(frozen=True, slots=True)
class Asked:
    """The settings of a run that its memory follows from; ``builtin`` and ``continues`` say what it stands on."""

    model: ModelSettings
    train: TrainSettings
    evaluate: EvalSettings
    builtin: bool
    continues: bool


def find_room(shape: Shape, asked: Asked, lengths: Lengths, device: Device) -> Room:
    """A run whose batches are too large is not refused: it goes on in smaller passes when memory runs out. It cannot fit
    when its longest chunk alone, with all that is there besides, is too large for the device."""

    def needs(setting: Asked, load: Load) -> Footprint:
        return footprint(shape, _training(setting, device), load, device)

    load = _load(shape, asked, lengths, device)
    whole = needs(asked, load)
    room = Room(device.name, device.memory, Fit.WHOLE, whole.total, whole, (), None)
    if whole.total <= device.memory:
        return room
    chunk = _longest(shape, asked, lengths)
    smaller, found = load, whole
    while found.total > device.memory:
        less = _smaller(smaller, found, chunk)
        if less is None:
            changes, then = _cure(shape, asked, lengths, device)
            return replace(room, fit=Fit.NOT, changes=changes, then=then)
        smaller = less
        found = needs(asked, smaller)
    changed = []
    if smaller.pass_tokens < load.pass_tokens:
        changed.append(f"train.pass_tokens={smaller.pass_tokens}")
    if smaller.eval_tokens < load.eval_tokens:
        changed.append(f"eval.batch_tokens={smaller.eval_tokens}")
    return replace(room, fit=Fit.SMALLER, changes=tuple(changed), then=found.total)


def _training(asked: Asked, device: Device) -> Training:
    """The settings with their defaults resolved, as the training process resolves them."""
    model, train = asked.model, asked.train
    optimizer = train.optimizer
    if optimizer == "auto":
        optimizer = "paged_adamw_8bit" if device.gpu and not train.shard else "adamw_torch_fused"
    return Training(
        quantize=model.quantize,
        bfloat16=device.bfloat16 if model.dtype == "auto" else model.dtype == "bfloat16",
        checkpointing=device.gpu if train.gradient_checkpointing is None else train.gradient_checkpointing,
        rank=train.lora_r,
        head=asked.builtin,
        optimizer=optimizer,
        shards=train.together if train.shard else 1,
        cards=train.processes if train.shard else 1,
    )


def _longest(shape: Shape, asked: Asked, lengths: Lengths) -> int:
    """Tokens of the longest chunk as the model reads it."""
    own = shape.context or 2048
    return min(lengths.chunk, own, asked.model.context or own)


def _load(shape: Shape, asked: Asked, lengths: Lengths, device: Device) -> Load:
    longest = _longest(shape, asked, lengths)
    if device.gpu:
        most = max(lengths.batch, longest)
        passes = min(most, asked.train.pass_tokens or most)
        return Load(max(passes, longest), max(asked.evaluate.batch_tokens, longest))
    side_by_side = max(1, min(device.lanes, asked.evaluate.batch_tokens // max(1, longest)))
    return Load(max(asked.train.pass_tokens or CPU_PASS_TOKENS, longest), side_by_side * longest)


def _smaller(load: Load, found: Footprint, longest: int) -> Load | None:
    """Half of what takes the most, as training halves it when memory runs out; None when there is nothing left to halve."""
    passes, measured = halved(load.pass_tokens, longest), halved(load.eval_tokens, longest)
    if found.evaluation > found.activations + found.logits:
        return None if measured is None else replace(load, eval_tokens=measured)
    return None if passes is None else replace(load, pass_tokens=passes)


def _cure(shape: Shape, asked: Asked, lengths: Lengths, device: Device) -> tuple[tuple[str, ...], int | None]:
    """The first settings under which the longest chunk fits, and the bytes it then needs."""
    for changes in _candidates(shape, asked, lengths, device):
        changed = _changed(asked, changes)
        longest = _longest(shape, changed, lengths)
        total = footprint(shape, _training(changed, device), Load(longest, longest), device).total
        if total <= device.memory:
            return tuple(f"{name}={str(value).lower()}" for name, value in changes.items()), total
    return (), None


def _candidates(shape: Shape, asked: Asked, lengths: Lengths, device: Device) -> Iterator[Changes]:
    """One change after another, what costs the adapter least first; then several at once."""
    training = _training(asked, device)
    switches: Changes = {}
    if not training.quantize:
        switches["model.quantize"] = True
    if not training.checkpointing:
        switches["train.gradient_checkpointing"] = True
    contexts: list[Changes] = [
        {"model.context": tokens} for tokens in _halvings(_longest(shape, asked, lengths), LEAST_CONTEXT)
    ]
    fresh: Changes = {"model.init_from": "fresh"} if asked.continues else {}  # an adapter keeps its rank
    ranks: list[Changes] = [{"train.lora_r": rank, **fresh} for rank in _halvings(asked.train.lora_r, LEAST_RANK)]
    yield from ({name: value} for name, value in switches.items())
    yield from contexts
    yield from ranks
    yield switches
    shortest = contexts[-1:] or [{}]
    yield from ({**switches, **context} for context in contexts)
    yield from ({**switches, **shortest[0], **rank} for rank in ranks)


def _halvings(value: int, least: int) -> list[int]:
    found = []
    while value // 2 >= least:
        value //= 2
        found.append(value)
    return found


def _changed(asked: Asked, changes: Changes) -> Asked:
    """``asked`` with settings named as people name them, of the groups model and train."""
    groups: dict[str, Changes] = {"model": {}, "train": {}}
    for name, value in changes.items():
        group, _, field = name.partition(".")
        groups[group][field] = value
    model, train = asked.model.model_copy(update=groups["model"]), asked.train.model_copy(update=groups["train"])
    return replace(asked, model=model, train=train)
