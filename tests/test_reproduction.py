"""A run made again: identical on the same machine, and what was changed since is named."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from pipeline.errors import RunError, UsageError
from pipeline.home import Home, sha256_file, sha256_folder
from pipeline.runs.requests import RunRequest, RunResult
from retrain.run import execute
from streams.runs.lease import training_lease
from streams.runs.reproduction import DERIVED, compare, made_again, reproduce
from streams.runs.runner import Step
from tests.support.mailroom import Mailroom


def unheard(step: Step) -> None:
    """Hears nothing."""


class Twice:
    """A second run (it continues the first) and the same made again."""

    def __init__(self, home: Home, other: Home, request: RunRequest, result: RunResult) -> None:
        self.home, self.other, self.request, self.result = home, other, request, result
        self.folder = home.run(request.run_id)

    def differing(self) -> list[str]:
        return [one.name for one in compare(self.home, self.other, self.request.run_id).derived if not one.same]


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twice]:
    room = Mailroom(tmp_path_factory.mktemp("home"))
    room.close()
    first = room.ask()
    room.promote(first, execute(room.home, first.run_id, lambda progress: None))
    room.close()
    request = room.ask()
    result = execute(room.home, request.run_id, lambda progress: None)
    with made_again(room.home, request.run_id, unheard) as other:
        yield Twice(room.home, other, request, result)
    assert not other.root.exists()


@pytest.fixture
def recorded(twice: Twice) -> Iterator[dict[str, str]]:
    """The digests of the run's files, in a receipt beside them."""
    files = {name: sha256_file(twice.folder / name) for name in DERIVED}
    path = twice.folder / "receipt.json"
    path.write_text(
        json.dumps({"files": files, "base": {"sha256": sha256_folder(twice.home.root / twice.request.base.path)}})
    )
    yield files
    path.unlink()


def test_the_same_machine_gives_the_same_bytes(twice: Twice) -> None:
    found = compare(twice.home, twice.other, twice.request.run_id)
    assert found.identical and found.conditions == ()
    assert len(found.derived) == len(DERIVED) + 3
    assert all(len(one.again) == 64 for one in found.derived)
    assert twice.request.parent is not None


def test_nothing_of_the_run_was_copied(twice: Twice) -> None:
    again = twice.other.run(twice.request.run_id)
    for name in (*DERIVED, "result.json"):
        assert (again / name).stat().st_ino != (twice.folder / name).stat().st_ino
    assert not (twice.other.root / twice.request.base.path).is_symlink()
    assert not twice.other.adapter(twice.request.adapter_id).is_symlink()


def test_another_environment_is_named(twice: Twice) -> None:
    path = twice.folder / "result.json"
    before = path.read_bytes()
    document = json.loads(before)
    document["environment"]["threads"] = "64"
    path.write_text(json.dumps(document))
    try:
        found = compare(twice.home, twice.other, twice.request.run_id)
    finally:
        path.write_bytes(before)
    assert [(one.name, one.recorded, one.now) for one in found.conditions] == [("threads", "64", "1")]
    assert found.identical


def test_a_run_of_an_earlier_version_is_held_to_what_it_noted_of_its_steps(twice: Twice) -> None:
    path = twice.folder / "metrics.jsonl"
    before = path.read_text()
    steps = [json.loads(line) for line in before.splitlines()]
    try:
        path.write_text("".join(json.dumps({k: v for k, v in step.items() if k != "lr"}) + "\n" for step in steps))
        assert twice.differing() == []
        path.write_text("".join(json.dumps(step | {"loss": 0.0}) + "\n" for step in steps))
        assert twice.differing() == ["losses of the steps"]
    finally:
        path.write_text(before)


@pytest.mark.parametrize("name", DERIVED)
def test_a_file_changed_since_is_named(twice: Twice, recorded: dict[str, str], name: str) -> None:
    path = twice.folder / name
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    try:
        found = compare(twice.home, twice.other, twice.request.run_id)
    finally:
        path.write_bytes(before)
    assert not found.identical
    (changed,) = [one for one in found.derived if not one.same]
    assert (changed.name, changed.again) == (name, recorded[name])
    assert changed.kept != changed.recorded == changed.again


def test_a_changed_adapter_is_named(twice: Twice) -> None:
    path = twice.home.adapter(twice.request.adapter_id) / "adapter_config.json"
    before = path.read_bytes()
    path.write_bytes(before + b" ")
    try:
        assert twice.differing() == [f"adapter {twice.request.adapter_id}"]
    finally:
        path.write_bytes(before)


def test_what_cannot_be_made_again_is_refused(twice: Twice) -> None:
    with pytest.raises(UsageError, match="there is no run 0123456789ab"):
        reproduce(twice.home, "0123456789ab", unheard)
    path = twice.folder / "request.json"
    before = path.read_bytes()
    path.write_bytes(before.replace(b'"seed": 7', b'"seed": 8'))
    try:
        with pytest.raises(RunError, match="was changed: it asks for run"):
            reproduce(twice.home, twice.request.run_id, unheard)
    finally:
        path.write_bytes(before)
    with training_lease(twice.home), pytest.raises(RunError, match="another process trains"):
        reproduce(twice.home, twice.request.run_id, unheard)
