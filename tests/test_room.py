"""Whether a run fits: what is told and refused, on devices of any size, and that a plan and a retrain say the same."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.capacity.footprint import Device
from pipeline.capacity.room import Asked, Fit, Lengths, Room, find_room
from pipeline.capacity.shapes import Shape, shape_of
from pipeline.config.configuration import load
from pipeline.config.settings import EvalSettings, ModelSettings, TrainSettings
from streams.demo.mailbox import write_mailbox
from tests.support.program import complaint, make, run

GIB = 1 << 30
LLAMA_7B = shape_of(
    {"model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
     "num_hidden_layers": 32, "num_attention_heads": 32, "tie_word_embeddings": False, "max_position_embeddings": 4096}
)  # fmt: skip
ASKED = Asked(
    ModelSettings(context=2048), TrainSettings(lora_r=64, batch_tokens=8192), EvalSettings(batch_tokens=16384), False, True
)
LENGTHS = Lengths(batch=10_240, chunk=2_560)


def gpu(gibibytes: float) -> Device:
    return Device("a GPU", True, round(gibibytes * GIB), True, 1)


def shape() -> Shape:
    assert LLAMA_7B is not None
    return LLAMA_7B


def test_a_large_device_takes_everything_whole() -> None:
    room = find_room(shape(), ASKED, LENGTHS, gpu(80))
    assert (room.fit, room.changes) == (Fit.WHOLE, ())
    # QLoRA's own figure for 7B with short sequences is about 5 GB of weights and adapter; the rest here is length.
    assert 5 * GIB < room.needed - room.parts.activations - room.parts.logits < 11 * GIB


def test_a_base_that_no_gpu_holds_is_shared_out_over_several() -> None:
    """70 billion parameters on GPUs of 24 GiB: each loads, holds and measures a part. A machine of one GPU must measure the
    base whole, so that four of these are none the better."""
    large = replace(shape(), width=8192, inner=28672, layers=80, heads=64, kv_heads=8, head_width=128)
    evaluate, lengths = EvalSettings(batch_tokens=1024), Lengths(batch=1024, chunk=1024)

    def on(processes: int, machines: int = 1) -> Room:
        meet = "gpu1.example:29400" if machines > 1 else None
        together = {"processes": processes, "machines": machines, "address": meet, "shard": True}
        train = TrainSettings.model_validate({"lora_r": 16, "batch_tokens": 1024, **together})
        return find_room(large, replace(ASKED, train=train, evaluate=evaluate), lengths, gpu(24))

    assert on(4).fit is Fit.WHOLE and on(4).parts.weights > on(4).memory
    assert on(8).needed < on(4).needed < on(2).needed and on(2).fit is Fit.NOT
    assert on(1, machines=4).needed > on(1, machines=4).parts.weights


def test_what_is_too_large_at_once_goes_in_smaller_passes() -> None:
    room = find_room(shape(), ASKED, LENGTHS, gpu(16))
    assert room.fit is Fit.SMALLER
    assert room.then is not None and room.then <= room.memory < room.needed
    changes = dict(change.split("=") for change in room.changes)
    assert set(changes) <= {"train.pass_tokens", "eval.batch_tokens"}
    train = ASKED.train.model_copy(update={"pass_tokens": int(changes.get("train.pass_tokens", 0)) or None})
    evaluate = ASKED.evaluate.model_copy(update={"batch_tokens": int(changes.get("eval.batch_tokens", 16384))})
    assert find_room(shape(), replace(ASKED, train=train, evaluate=evaluate), LENGTHS, gpu(16)).fit is Fit.WHOLE


@pytest.mark.parametrize(
    ("model", "train", "device", "first"),
    [
        pytest.param({"quantize": False}, {}, gpu(14), "model.quantize=true", id="4-bit"),
        pytest.param({}, {"gradient_checkpointing": False}, gpu(12), "train.gradient_checkpointing=true", id="recompute"),
        pytest.param({}, {}, gpu(8), "model.context", id="context"),
        pytest.param({"context": 256}, {"lora_r": 512}, gpu(8), "train.lora_r", id="rank"),
    ],
)
def test_what_cannot_fit_names_the_setting_that_would(
    model: dict[str, object], train: dict[str, object], device: Device, first: str
) -> None:
    asked = replace(ASKED, model=ASKED.model.model_copy(update=model), train=ASKED.train.model_copy(update=train))
    room = find_room(shape(), asked, LENGTHS, device)
    assert room.fit is Fit.NOT
    assert room.changes[0].startswith(first)
    assert room.then is not None and room.then <= device.memory
    if first == "train.lora_r":
        assert "model.init_from=fresh" in room.changes  # the champion's adapter has the rank it has


def test_where_nothing_helps_nothing_is_promised() -> None:
    room = find_room(shape(), ASKED, LENGTHS, gpu(3))
    assert (room.fit, room.changes, room.then) == (Fit.NOT, (), None)


@given(
    memory=st.floats(1, 100),
    quantize=st.booleans(),
    checkpointing=st.sampled_from([None, True, False]),
    rank=st.sampled_from([8, 64, 256]),
    batch=st.integers(1, 40_000),
    chunk=st.integers(1, 20_000),
)
def test_whatever_is_named_fits(
    memory: float, quantize: bool, checkpointing: bool | None, rank: int, batch: int, chunk: int
) -> None:
    """The settings that a room names, set as a person would set them, never end in "cannot fit"."""
    asked = replace(
        ASKED,
        model=ModelSettings(quantize=quantize),
        train=TrainSettings(lora_r=rank, gradient_checkpointing=checkpointing),
        continues=False,
    )
    lengths, device = Lengths(max(batch, chunk), chunk), gpu(memory)
    room = find_room(shape(), asked, lengths, device)
    assert (room.fit is Fit.WHOLE) == (room.needed <= room.memory)
    if room.changes:
        told = load(None, environment={}, overrides=[*_as_overrides(asked), *room.changes])
        after = find_room(shape(), replace(asked, model=told.model, train=told.train, evaluate=told.eval), lengths, device)
        assert after.fit is not Fit.NOT
        assert room.fit is Fit.NOT or after.fit is Fit.WHOLE


def _as_overrides(asked: Asked) -> list[str]:
    return [
        f"model.quantize={str(asked.model.quantize).lower()}",
        f"train.lora_r={asked.train.lora_r}",
        f"train.gradient_checkpointing={json.dumps(asked.train.gradient_checkpointing)}",
        f"eval.batch_tokens={asked.evaluate.batch_tokens}",
    ]


def test_a_plan_tells_what_a_retrain_refuses(tmp_path: Path) -> None:
    """A model of 7 billion parameters on a GPU of 2 GiB: its weights are never read, as none are there."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 32000, "hidden_size": 4096,
        "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}))  # fmt: skip
    (base / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    (base / "tokenizer.json").write_text("{}")
    home = make(tmp_path / "home", f"model.base={base}", "plan.gpu_gib=2", "window.bootstrap=20")
    archive = tmp_path / "archive.mbox"
    write_mailbox(archive, seed=3, months=2, messages=40)
    assert run(home, "import", str(archive)).returncode == 0
    planned = run(home, "plan")
    assert planned.returncode == 0, planned.stderr
    assert "of 2.0 GiB of a GPU with 2 GiB" in planned.stdout
    assert "mailtide retrain refuses" in planned.stdout
    refused = run(home, "retrain", "--confirm")
    assert refused.returncode == 1
    assert "too little for the longest chunk alone" in complaint(refused)
    assert json.loads(run(home, "runs", "--json").stdout) == []
    (base / "tokenizer.json").unlink()
    without = run(home, "plan").stdout
    assert "mailtide retrain refuses this run: the base model in" in without
    assert "has no tokenizer.json; fetch it again" in without
    enough = json.loads(run(home, "plan", "--json", "--set", "plan.gpu_gib=80").stdout)["room"]
    assert enough["fit"] == "fits"
    assert enough["parts"]["weights"] > 3 * GIB
