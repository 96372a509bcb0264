"""What the settings ask of an adapter is held against PEFT, and against the adapter to be continued, before a claim."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig

from pipeline.config.settings import Settings, TrainSettings
from pipeline.errors import RunError
from pipeline.store.rows import RequestRow
from streams.runs.claims import ALL_WAITING, claim
from streams.runs.lora import ADAPTER_CONFIG, OWN_SETTINGS, require_known_fields
from streams.runs.planning import plan_next, require_room
from tests.support.finished import Finished
from tests.support.lineage import MAILBOX


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Finished]:
    finished = Finished.at(tmp_path / "home")
    with finished.store:
        yield finished


def test_every_field_of_peft_is_known_and_no_other() -> None:
    own = {field.name for field in fields(LoraConfig) if field.name in LoraConfig.__annotations__}
    assert len(own) > 20
    defaults = {field.name: field.default for field in fields(LoraConfig) if field.name in own - OWN_SETTINGS.keys()}
    plain = {name: value for name, value in defaults.items() if value is None or isinstance(value, bool | int | str)}
    assert len(plain) > 20
    require_known_fields(TrainSettings(lora=plain))
    with pytest.raises(RunError, match="use_rslor, which PEFT's LoraConfig does not know; it knows use_rslora"):
        require_known_fields(TrainSettings(lora={"use_rslor": True}))


@pytest.mark.parametrize(
    ("field", "wrong", "right"),
    [
        ("bias", "sometimes", "lora_only"),
        ("use_rslora", "yes", True),
        ("target_modules", 3, ["q_proj", "v_proj"]),
        ("target_modules", ["q_proj", 3], "all-linear"),
        ("init_lora_weights", "pisa", "pissa_niter_4"),
        ("layers_to_transform", "0", [0, 1]),
        ("layer_replication", 4, [[0, 4], [2, 5]]),
        ("qalora_group_size", True, 16),
    ],
)
def test_a_value_that_peft_does_not_take_is_told_with_what_it_takes(field: str, wrong: Any, right: Any) -> None:
    require_known_fields(TrainSettings(lora={field: right}))
    with pytest.raises(
        RunError, match=rf"train\.lora sets {field} to .*, which PEFT's LoraConfig does not take; it takes \w"
    ):
        require_known_fields(TrainSettings(lora={field: wrong}))


def test_a_setting_of_its_own_is_named() -> None:
    with pytest.raises(RunError, match=r"train\.lora sets r, which is a setting of its own; use train\.lora_r"):
        require_known_fields(TrainSettings(lora={"r": 4}))


def test_an_unknown_field_is_refused_before_a_run_is_asked_for(box: Finished) -> None:
    box.close_window()
    settings = Settings.model_validate({"train": {"lora": {"nonsense": 3}}})
    with pytest.raises(RunError, match=r"train\.lora sets nonsense") as told:
        require_room(box.store, box.home, settings, MAILBOX, ALL_WAITING)
    assert plan_next(box.store, box.home, settings, MAILBOX, ALL_WAITING).refused == (str(told.value),)
    assert box.store.fetch(RequestRow) == []


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"lora_r": 8}, "rank 16 and alpha 32, the settings ask for 8 and 32"),
        ({"lora_dropout": 0.1}, "a dropout of 0.05, which it keeps, and the settings ask for 0.1"),
        ({"lora": {}}, r"train\.lora {\"use_rslora\": true}, which it keeps, and the settings ask for {}"),
    ],
)
def test_another_adapter_than_the_one_to_be_continued_is_refused(asked: dict[str, Any], says: str, box: Finished) -> None:
    made_with = {"lora_dropout": 0.05, "lora": {"use_rslora": True}}
    for _ in range(2):  # the second continues the first
        box.close_window()
        settings = Settings.model_validate({"train": made_with})
        require_room(box.store, box.home, settings, MAILBOX, ALL_WAITING)
        run = claim(box.store, box.home, settings, MAILBOX, ALL_WAITING, box.now)
        box.base = f"base:{run.base.base_id}"
        base = box.home.root / run.base.path
        base.mkdir(parents=True, exist_ok=True)
        (base / "model.safetensors").write_bytes(b"weights of the base")
        assert box.decide(run, box.finish(run, new=-0.3)).status == "promoted"
        config = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05}
        (box.home.adapter(run.adapter_id) / ADAPTER_CONFIG).write_text(json.dumps(config))
    box.close_window()
    other = Settings.model_validate({"train": {**made_with, **asked}})
    with pytest.raises(RunError, match=f"the parent adapter {run.adapter_id} .*{says}") as told:
        require_room(box.store, box.home, other, MAILBOX, ALL_WAITING)
    assert plan_next(box.store, box.home, other, MAILBOX, ALL_WAITING).refused == (str(told.value),)
    anew = other.model_copy(update={"model": other.model.model_copy(update={"init_from": "fresh"})})
    require_room(box.store, box.home, anew, MAILBOX, ALL_WAITING)
