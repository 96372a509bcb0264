"""Replies for people to judge: of held-out mails alone, by a real adapter and its base, the same whoever is asked first."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from pipeline.config.settings import EvalSettings, TrainSettings
from pipeline.domain import Split
from pipeline.errors import NothingToDo
from pipeline.home import sha256_folder
from pipeline.runs.requests import AdapterRef
from pipeline.runs.runfiles import Exclusions
from pipeline.runs.spotsheet import Check, Side
from retrain.evaluation.spot_replies import make_sheet
from retrain.models.adapters import WEIGHTS
from retrain.run import execute
from retrain.search.retrieval import read_mails
from tests.support.lineage import MAILBOX
from tests.support.mailroom import Mailroom, tiny_settings


def stronger(adapter: Path, folder: Path) -> str:
    """An adapter that does what another one does, but far more of it; the digest of its folder."""
    shutil.copytree(adapter, folder)
    weights = load_file(folder / WEIGHTS)
    save_file({name: 40 * value if "lora_B" in name else value for name, value in weights.items()}, folder / WEIGHTS)
    return sha256_folder(folder)


def test_an_adapter_and_its_base_reply_to_held_out_mails(tmp_path: Path) -> None:
    train = TrainSettings(epochs=1, batch_tokens=512, checkpoint_every=100, lora_r=4, lora_alpha=8, threads=1)
    room = Mailroom(tmp_path / "home", tiny_settings(train=train, evaluate=EvalSettings(max_replies=0, generate=0)))
    room.close(threads=48)
    request = room.ask()
    result = execute(room.home, request.run_id, lambda progress: None)
    ref = AdapterRef(
        adapter_id="astrong",
        run_id=request.run_id,
        path="adapters/astrong",
        sha256=stronger(room.home.adapter(result.adapter_id), room.home.adapter("astrong")),
    )
    own, base = Side(ref.adapter_id, ref), Side(f"base:{request.base.base_id}", None)
    check = Check(
        mailbox=MAILBOX,
        sides=(own, base),
        base=request.base,
        model=request.settings.model,
        shards=request.shards,
        exclusions=Exclusions(),
        min_threads=20,
        n=4,
        seed=7,
        tokens=8,
    )
    reports: list[tuple[int, int]] = []
    sheet = make_sheet(room.home, check, {}, lambda done, total, text: reports.append((done, total)))
    assert (len(sheet.lines), reports[0], reports[-1]) == (4, (0, 8), (8, 8))
    mails = {mail.key: mail for mail in read_mails(room.home, request.shards, Exclusions())}
    for line in sheet.lines:
        reply = mails[line.message_key]
        assert reply.split is Split.VAL and reply.parent is not None
        assert (line.asked, line.real) == (mails[reply.parent].words.strip(), reply.words.strip())
        assert set(line.written) == {own.name, base.name}
        assert "⁂" not in line.asked_lead and line.asked_lead
    assert any(line.written[own.name] != line.written[base.name] for line in sheet.lines), "the adapter makes a difference"

    turned = make_sheet(room.home, replace(check, sides=(base, own)), {}, lambda done, total, text: None)
    assert turned.lines == sheet.lines, "neither side leaves anything behind in the model"

    known = {(name, line.read_sha256): text for line in sheet.lines for name, text in line.written.items()}
    known[own.name, sheet.lines[0].read_sha256] = "as it was written before"
    reports.clear()
    more = make_sheet(room.home, replace(check, n=5), known, lambda done, total, text: reports.append((done, total)))
    assert more.lines[0].written[own.name] == "as it was written before"
    assert more.lines[1:4] == sheet.lines[1:], "a larger sample holds the smaller one"
    assert reports[-1] == (2, 2), "only what is lacking is written"

    gone = sheet.lines[0].thread_id
    left = make_sheet(room.home, replace(check, exclusions=Exclusions(threads=frozenset({gone}))), known, lambda *_: None)
    assert gone not in {line.thread_id for line in left.lines}
    every = frozenset(mail.thread_id for mail in mails.values())
    with pytest.raises(NothingToDo, match="held-out thread"):
        make_sheet(room.home, replace(check, exclusions=Exclusions(threads=every)), known, lambda *_: None)
