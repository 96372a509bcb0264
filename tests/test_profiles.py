"""The profiles under configs/: each makes a home as it stands, and fits the device that its name says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.capacity.footprint import Device
from pipeline.capacity.room import Asked, Fit, Lengths, Room, find_room
from pipeline.capacity.shapes import Shape, builtin_shape, shape_of
from pipeline.config.configuration import load, read_home
from pipeline.config.settings import Settings
from pipeline.home import Home
from streams.cli.commands import carry_out
from streams.runs.planning import BUILTIN_TOKENS, OTHER_TOKENS
from tests.conftest import REPOSITORY

CONFIGS = REPOSITORY / "configs"
PROFILES = sorted(path for path in CONFIGS.glob("*.yaml") if re.match(r"gpu-|two-gpus-|laptop", path.name))

GIB = 1 << 30
LAPTOP = Device("a laptop", False, 4 * GIB, False, 2)


def qwen(width: int, inner: int, layers: int, heads: int, kv_heads: int, *, tied: bool) -> Shape:
    """A shape with the largest vocabulary in wide use, whose logits weigh the most."""
    found = shape_of(
        {"model_type": "qwen2", "vocab_size": 152064, "hidden_size": width, "intermediate_size": inner,
         "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
         "tie_word_embeddings": tied, "max_position_embeddings": 32768}
    )  # fmt: skip
    assert found is not None
    return found


MODELS = {
    8: qwen(1536, 8960, 28, 12, 2, tied=True),
    24: qwen(3584, 18944, 28, 28, 4, tied=False),
    80: qwen(5120, 27648, 64, 40, 8, tied=False),
}
"""The model that a profile is for: 1.5, 7 and 32 billion parameters."""


def room_in(settings: Settings, shape: Shape, device: Device, tokens: float) -> Room:
    """With chunks and batches as long as the settings allow."""
    builtin = settings.model.base == "builtin"
    chunk = round(settings.chunk.max_tokens * tokens)
    lengths = Lengths(batch=max(round(settings.train.batch_tokens * tokens), chunk), chunk=chunk)
    return find_room(shape, Asked(settings.model, settings.train, settings.eval, builtin, True), lengths, device)


@pytest.mark.parametrize("file", PROFILES, ids=lambda file: file.stem)
def test_a_profile_makes_a_home(file: Path, tmp_path: Path) -> None:
    assert len(PROFILES) == 5
    home = Home(tmp_path / "home")
    assert carry_out(["--home", str(home.root), "init", "--config", str(file)]) == 0
    assert read_home(home, environment={}) == load(file, environment={})


@pytest.mark.parametrize("gigabytes", MODELS)
def test_a_profile_fits_the_gpu_of_its_name(gigabytes: int) -> None:
    """Whole, and with a twelfth of the memory to spare for a screen and for what an estimate misses."""
    settings = load(CONFIGS / f"gpu-{gigabytes}gb.yaml", environment={})
    device = Device("its GPU", True, gigabytes * GIB, True, 1)
    room = room_in(settings, MODELS[gigabytes], device, OTHER_TOKENS)
    assert room.fit is Fit.WHOLE, room
    assert room.needed < device.memory * 11 / 12


def test_two_gpus_train_what_one_of_them_cannot() -> None:
    settings = load(CONFIGS / "two-gpus-24gb.yaml", environment={})
    shape = qwen(5120, 13824, 48, 40, 8, tied=False)
    device = Device("one of them", True, 24 * GIB, True, 1)
    assert room_in(settings, shape, device, OTHER_TOKENS).fit is Fit.WHOLE
    alone = settings.model_copy(update={"train": settings.train.model_copy(update={"processes": 1, "shard": False})})
    assert room_in(alone, shape, device, OTHER_TOKENS).fit is not Fit.WHOLE


def test_the_laptop_profile_learns_whole_chunks_in_little_memory() -> None:
    settings = load(CONFIGS / "laptop.yaml", environment={})
    shape = builtin_shape(settings.model.builtin)
    room = room_in(settings, shape, LAPTOP, BUILTIN_TOKENS)
    assert room.fit is Fit.WHOLE and room.needed < 2 * GIB
    assert settings.chunk.max_tokens * BUILTIN_TOKENS <= settings.model.builtin.context


def test_the_profile_for_24_gigabytes_trains_as_it_says() -> None:
    train = load(CONFIGS / "gpu-24gb.yaml", environment={}).train
    assert (train.lora_r, train.lr) == (64, 8e-5)
