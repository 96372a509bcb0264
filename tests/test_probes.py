"""What a run finds in its own adapter: canaries that it remembers, copies of held-out mail, flags in what it writes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pipeline.arrival.people import PeopleKey
from pipeline.chunking.ruler import load_ruler
from pipeline.config.settings import TrainSettings
from pipeline.domain import Chunk, Split, Tier
from pipeline.privacy.canaries import CANARY, SPACE, canary_chunks, cut, exposure, others, said
from pipeline.runs.requests import RunRequest
from pipeline.runs.runfiles import NEAR_COPY, read_losses
from retrain.evaluation.canaries import canary_evidence, exposures
from retrain.progress import Progress
from retrain.run import execute
from tests.conftest import REPOSITORY
from tests.support.mailroom import Mailroom, letters, tiny_settings

SCHEMA = json.loads((REPOSITORY / "docs" / "eval_results.schema.json").read_text(encoding="utf-8"))
KEY = PeopleKey(b"c" * 32)
LONG = TrainSettings(
    epochs=40, batch_tokens=512, checkpoint_every=1000, lora_r=8, lora_alpha=16, threads=1, patience=0, lr=8e-3
)


def quiet(progress: Progress) -> None:
    """Hears nothing."""


def canaries(n: int) -> list[Chunk]:
    return canary_chunks("main", 0, n, lambda name: KEY.of(CANARY, name), load_ruler("bytes"))


def copied(chunks: list[Chunk]) -> tuple[list[Chunk], str]:
    """The chunks with one more of train that says what a val chunk says, and that val chunk's id."""
    held = next(chunk for chunk in chunks if chunk.split is Split.VAL and chunk.n_tokens > 60)
    copy = replace(held, chunk_id="copy:w0:0", thread_id="copy", split=Split.TRAIN)
    return [*chunks, copy], held.chunk_id


@pytest.fixture(scope="module")
def remembering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mailroom, RunRequest, str]]:
    """A run that read two canaries and a copy of a val chunk forty times; the copy's original is left out."""
    room = Mailroom(tmp_path_factory.mktemp("remembering"), tiny_settings(train=LONG))
    chunks, held = copied(letters(0, 10))
    room.lineage.close([*chunks, *canaries(2)])
    room.lineage.excluded.append((held.partition(":")[0], held, f"{NEAR_COPY}copy:w0:0 (train): Jaccard 1.00"))
    request = room.ask()
    execute(room.home, request.run_id, quiet)
    yield room, request, held


def results(room: Mailroom, request: RunRequest) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((room.home.run(request.run_id) / "eval_results.json").read_bytes())
    jsonschema.Draft202012Validator(SCHEMA).validate(found)
    return found


def test_a_canary_read_often_is_remembered(remembering: tuple[Mailroom, RunRequest, str]) -> None:
    room, request, _ = remembering
    found = results(room, request)
    told = found["canaries"]
    assert [one["chunk_id"] for one in told] == [f"canary:w0:{place}" for place in range(2)]
    assert sum(one["exposure"] for one in told) / 2 > 5.0
    (figure,) = [one for one in found["gate_evidence"] if one["name"] == "canary"]
    assert figure["n"] == 2 and figure["low"] > 2.0


def test_one_never_read_is_not(remembering: tuple[Mailroom, RunRequest, str]) -> None:
    """The same adapter, and numbers of another home: as likely as any others."""
    from peft import PeftModel

    from retrain.models.base import locate
    from retrain.models.loaded import Loaded
    from retrain.models.model import choose_compute, load_base, load_tokenizer

    room, request, _ = remembering
    model_settings = request.settings.model
    folder, compute = locate(room.home, request.base, model_settings), choose_compute(model_settings, 1)
    base: Any = load_base(folder, compute, quantize=model_settings.quantize)
    model = PeftModel.from_pretrained(base, str(room.home.adapter(request.adapter_id)))
    other = PeopleKey(b"o" * 32)
    strange = canary_chunks("main", 0, 20, lambda name: other.of(CANARY, name), load_ruler("bytes"))

    def mean(chunks: list[Chunk]) -> float:
        found = [(chunk.chunk_id, 0, chunk.text) for chunk in chunks]
        told = exposures(Loaded(model, compute, 0), load_tokenizer(folder), 256, found)
        return sum(one.exposure for one in told) / len(told)

    assert mean(strange) < 4.0
    assert mean(canaries(2)) > mean(strange) + 2.0


def test_a_copy_that_was_left_out_is_measured_aside(remembering: tuple[Mailroom, RunRequest, str]) -> None:
    room, request, held = remembering
    losses = {
        (loss.adapter_id, loss.chunk_id): loss for loss in read_losses(room.home.run(request.run_id) / "losses.parquet")
    }
    ours = losses[request.adapter_id, held]
    others_ = [loss for (name, chunk), loss in losses.items() if name == request.adapter_id and chunk != held]
    assert ours.nll / ours.n_tokens < sum(loss.nll for loss in others_) / sum(loss.n_tokens for loss in others_) - 0.3
    assert all(
        entry["n_chunks"] == len([x for x in others_ if x.split == entry["split"]]) for entry in of_run(room, request)
    )


def of_run(room: Mailroom, request: RunRequest) -> list[dict[str, Any]]:
    return [entry for entry in results(room, request)["checkpoints"] if entry["adapter_id"] == request.adapter_id]


def test_the_gate_hears_of_it(remembering: tuple[Mailroom, RunRequest, str]) -> None:
    room, request, _ = remembering
    found = results(room, request)
    figures = {one["name"]: one for one in found["gate_evidence"]}
    assert figures["contamination"]["figure"] == 0.0 and figures["contamination"]["n"] > 0
    assert figures["safety"]["n"] == found["safety"]["outputs"] > 0
    assert found["safety"]["flagged"] == 0


def test_a_copy_that_was_missed_speaks_against_promotion(tmp_path: Path) -> None:
    short = TrainSettings(epochs=1, batch_tokens=512, checkpoint_every=1000, lora_r=4, lora_alpha=8, threads=1)
    room = Mailroom(tmp_path, tiny_settings(train=short))
    chunks, _ = copied(letters(0, 10))
    room.lineage.close(chunks)
    request = room.ask()
    execute(room.home, request.run_id, quiet)
    figures = {one["name"]: one for one in results(room, request)["gate_evidence"]}
    assert figures["contamination"]["figure"] > 0.0
    assert figures["canary"]["figure"] is None and figures["canary"]["reason"]


def test_a_canary_is_no_mail() -> None:
    (one,) = canaries(1)
    assert (one.split, one.tier, one.thread_id, one.sender) == (Split.TRAIN, Tier.CANARY, CANARY, CANARY)
    assert one.message_keys == () and one.n_messages == 0
    before, number, after = cut(one.text)
    assert before + said(number) + after == one.text
    assert len({number, *others()}) == SPACE
    with pytest.raises(ValueError, match="no canary"):
        cut("The canary number is 12.")


def test_exposure_counts_bits() -> None:
    assert exposure(1) == 10.0 and exposure(SPACE) == 0.0
    mean = sum(exposure(rank) for rank in range(1, SPACE + 1)) / SPACE
    assert abs(mean - 1 / math.log(2)) < 0.01
    assert canary_evidence([]).figure is None
