"""A base from elsewhere is named by its content: read once, told apart when it changes, and never silently replaced."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.capacity import content
from pipeline.capacity.content import by_name, content_of, require_content
from pipeline.config.settings import Settings
from pipeline.errors import RunError
from pipeline.home import Home
from pipeline.runs.requests import RunRequest
from pipeline.store.rows import RequestRow
from registry.decide import journal
from registry.deploy.merged import base_folder
from registry.verify import read_bases_anew, verify
from streams.runs.bases import base_to_ask, ready_base
from streams.runs.claims import ALL_WAITING, claim
from streams.runs.faults import require_inputs
from streams.runs.planning import plan_next, require_room
from tests.support.finished import Finished
from tests.support.lineage import MAILBOX

OLD = 1_600_000_000_000_000_000
"""A time long ago, in nanoseconds."""


def make_base(folder: Path, filling: bytes = b"a") -> Path:
    """A folder with what a run looks at before it is asked for; its weights are no model's."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    (folder / "tokenizer.json").write_text("{}")
    write_weights(folder, filling)
    return folder


def write_weights(folder: Path, filling: bytes) -> None:
    header = json.dumps({"w": {"dtype": "U8", "shape": [64], "data_offsets": [0, 64]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + 64 * filling)


def age(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes all files look as if nobody had written to them for long."""
    for path in folder.iterdir():
        os.utime(path, ns=(OLD, OLD))
    monkeypatch.setattr(content, "TOO_FRESH_NS", 0)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_the_same_files_are_the_same_base_wherever_they_lie(tmp_path: Path, home: Home) -> None:
    first, second = make_base(tmp_path / "one"), make_base(tmp_path / "other-name")
    assert content_of(home, first) == content_of(home, second)
    assert re.fullmatch(r"llama-[0-9a-f]{12}", content_of(home, first).base_id)
    (second / "README.md").write_text("what nobody loads")
    (second / "consolidated.safetensors").write_bytes(b"weights in another form")
    assert content_of(home, first) == content_of(home, second)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "generation_config.json"])
def test_one_byte_of_any_file_that_is_loaded_makes_it_another(name: str, tmp_path: Path, home: Home) -> None:
    base = make_base(tmp_path / "base")
    before = content_of(home, base).base_id
    path = base / name
    path.write_bytes((path.read_bytes() if path.exists() else b"{}") + b" ")
    with pytest.raises(RunError, match=rf"is llama-\w+ now, no longer {before}: {re.escape(name)} changed; put its files"):
        require_content(home, base, before)


def test_every_part_of_divided_weights_counts(tmp_path: Path, home: Home) -> None:
    base = make_base(tmp_path / "base")
    for part in ("1", "2"):
        shutil.copy(base / "model.safetensors", base / f"part-{part}.safetensors")
    named = {"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(named))
    assert set(content_of(home, base).files) == {
        "config.json",
        "tokenizer.json",
        "part-1.safetensors",
        "part-2.safetensors",
    }


def test_what_was_read_is_not_read_again_until_it_changes(
    tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_base(tmp_path / "base")
    age(base, monkeypatch)
    monkeypatch.setattr(content, "WORTH_TELLING", 0)
    read: list[tuple[int, int]] = []
    first = content_of(home, base, lambda done, total: read.append((done, total)))
    size = sum(path.stat().st_size for path in base.iterdir())
    assert read[-1] == (size, size)
    read.clear()
    assert content_of(home, base, lambda done, total: read.append((done, total))) == first
    assert read == []
    content_of(home, base, lambda done, total: read.append((done, total)), afresh=True)
    assert read[-1] == (size, size)
    write_weights(base, b"b")
    os.utime(base / "model.safetensors", ns=(OLD, OLD))  # as a copy that keeps times does
    read.clear()
    assert content_of(home, base, lambda done, total: read.append((done, total))) != first
    assert read[-1][1] == (base / "model.safetensors").stat().st_size, "the other files were not read again"


def test_a_file_that_was_just_written_is_not_remembered(tmp_path: Path, home: Home) -> None:
    content_of(home, make_base(tmp_path / "base"))
    assert json.loads(home.external_bases.read_text())["files"] == {}


def test_a_blob_of_the_hubs_cache_must_be_what_its_name_says(tmp_path: Path, home: Home) -> None:
    made = make_base(tmp_path / "made")
    snapshot, blobs = tmp_path / "cache" / "snapshots" / "c0ffee", tmp_path / "cache" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in made.iterdir():
        weights = path.suffix == ".safetensors"
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if weights else hashlib.sha1(path.read_bytes()).hexdigest()
        shutil.copy(path, blobs / digest)
        (snapshot / path.name).symlink_to(blobs / digest)
    assert content_of(home, snapshot) == content_of(home, made)
    blob = (snapshot / "model.safetensors").resolve()
    blob.write_bytes(blob.read_bytes().replace(b"aaa", b"aba", 1))
    with pytest.raises(RunError, match=r"model\.safetensors is damaged: .* the Hub's cache names it by; remove .*blobs"):
        content_of(home, snapshot)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Finished]:
    finished = Finished.at(tmp_path / "home")
    with finished.store:
        yield finished


def settings_on(base: Path | str, **model: Any) -> Settings:
    return Settings.model_validate({"model": {"base": str(base), **model}})


def champion(box: Finished, settings: Settings) -> RunRequest:
    """A promoted run on the base of the settings, and a window that waits."""
    box.close_window()
    run = claim(box.store, box.home, settings, MAILBOX, ALL_WAITING, box.now)
    box.base = f"base:{run.base.base_id}"
    assert box.decide(run, box.finish(run, new=-0.3)).status == "promoted"
    box.close_window()
    return run


def test_a_base_that_changed_under_its_champion_is_refused_before_a_claim(tmp_path: Path, box: Finished) -> None:
    base = make_base(tmp_path / "base")
    settings = settings_on(base)
    run = champion(box, settings)
    require_room(box.store, box.home, settings, MAILBOX, ALL_WAITING)
    write_weights(base, b"b")  # of the same size
    changed = (
        rf"which champion {run.adapter_id} was trained on, is llama-\w+ now, no longer {run.base.base_id}: model.safet"
    )
    with pytest.raises(RunError, match=changed) as told:
        require_room(box.store, box.home, settings, MAILBOX, ALL_WAITING)
    plan = plan_next(box.store, box.home, settings, MAILBOX, ALL_WAITING)
    assert plan.refused == (str(told.value),)
    assert len(box.store.fetch(RequestRow)) == 1
    anew = settings_on(base, init_from="fresh")
    require_room(box.store, box.home, anew, MAILBOX, ALL_WAITING)
    begun = claim(box.store, box.home, anew, MAILBOX, ALL_WAITING, box.now)
    assert (begun.parent, begun.champion, begun.new_windows) == (None, None, (0, 1))


def test_another_base_begins_a_new_lineage_and_the_plan_says_so(tmp_path: Path, box: Finished) -> None:
    run = champion(box, settings_on(make_base(tmp_path / "one")))
    other = settings_on(make_base(tmp_path / "two", b"b"))
    plan = plan_next(box.store, box.home, other, MAILBOX, ALL_WAITING)
    said = f"champion {run.adapter_id} stands on another base, {run.base.base_id} ({tmp_path / 'one'})"
    assert (plan.begins, plan.refused) == (said, ())
    moved = settings_on(shutil.move(tmp_path / "one", tmp_path / "three"))
    assert plan_next(box.store, box.home, moved, MAILBOX, ALL_WAITING).begins == "", "only its folder has another name"


def test_an_adapter_is_asked_on_the_base_that_it_was_trained_on(tmp_path: Path, box: Finished) -> None:
    settings = settings_on(make_base(tmp_path / "one"))
    run = champion(box, settings)
    serving = box.store.query("SELECT adapter_id FROM adapters WHERE status = 'champion'")
    assert serving == [(run.adapter_id,)] and journal(box.store).champion(MAILBOX) == run.adapter_id
    plan = box.home.run(run.run_id)
    assert (plan / "request.json").is_file()
    other = settings_on(make_base(tmp_path / "two", b"b"))
    ref = claim(box.store, box.home, settings, MAILBOX, ALL_WAITING, box.now).champion
    assert base_to_ask(box.store, box.home, other, MAILBOX, ref) == run.base
    assert base_to_ask(box.store, box.home, other, MAILBOX, None) != run.base


def test_what_a_run_stands_on_is_held_against_its_content(tmp_path: Path, box: Finished) -> None:
    base = make_base(tmp_path / "base")
    run = champion(box, settings_on(base))
    (box.home.root / run.base.path).mkdir(exist_ok=True)
    require_inputs(box.home, run)
    assert verify(box.home, run.run_id) == []
    assert base_folder(box.home, run.base) == base
    write_weights(base, b"b")
    read_bases_anew(box.home, [run], lambda done, total: None)
    with pytest.raises(RunError, match=r"model\.safetensors changed"):
        require_inputs(box.home, run)
    (problem,) = verify(box.home, run.run_id)
    assert problem.endswith(f"no longer {run.base.base_id}: model.safetensors changed")
    shutil.rmtree(base)
    assert verify(box.home, run.run_id) == [
        f"{base} is missing: the base model {run.base.base_id} that the run was trained on"
    ]


def test_a_base_that_is_not_here_is_named_as_what_it_is_called(
    tmp_path: Path, box: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_on("maker/Some-Model", revision="v2")
    ready_base(box.home, settings, lambda done, total: None)
    run = champion(box, settings)
    assert run.base.base_id == by_name("maker/Some-Model", "v2") and run.base.base_id.startswith("some-model-")
    base = make_base(tmp_path / "base")
    monkeypatch.setattr("streams.runs.bases.folder_here", lambda *_: base)
    assert plan_next(box.store, box.home, settings, MAILBOX, ALL_WAITING).begins == "", "it came here: the lineage goes on"


def test_a_base_that_went_elsewhere_keeps_its_name(tmp_path: Path, box: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_on(make_base(tmp_path / "base"))
    run = champion(box, settings)
    shutil.rmtree(tmp_path / "base")
    assert claim(box.store, box.home, settings, MAILBOX, ALL_WAITING, box.now).base == run.base
