"""Checkpoints on the disk: told to be whole by their digests, freed by number and by the room they take."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import RunError
from retrain.models.adapters import WEIGHTS
from retrain.training import checkpoints
from retrain.training.checkpoints import LOSSES, STATE, SUMS, Checkpoint

SIZE = 10_000
"""Bytes of the weights of each; the rest is small."""


def written(folder: Path, *steps: int) -> list[Checkpoint]:
    for step in steps:
        partial = checkpoints.partial(folder)
        (partial / WEIGHTS).write_bytes(bytes(SIZE - 1) + bytes([step]))
        for name in ("optimizer.pt", LOSSES, STATE):
            (partial / name).write_text(f"{name} of {step}")
        checkpoints.complete(partial, folder, step)
    return checkpoints.find(folder)


def resumable(folder: Path) -> list[int]:
    return [checkpoint.step for checkpoint in checkpoints.find(folder) if checkpoint.resumable]


@pytest.mark.parametrize("name", [WEIGHTS, "optimizer.pt", LOSSES, STATE, SUMS])
def test_what_was_changed_goes_with_all_that_came_after(name: str, tmp_path: Path) -> None:
    found = written(tmp_path, 2, 4, 6, 8)
    assert checkpoints.drop_damaged(tmp_path) == []
    path = tmp_path / "step-000006" / name
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(RunError, match=rf"step-000006/{name} was changed since"):
        checkpoints.require_whole(found[2])
    checkpoints.require_whole(found[3])
    assert checkpoints.drop_damaged(tmp_path) == found[2:]
    assert checkpoints.find(tmp_path) == found[:2]
    assert checkpoints.newest_whole(tmp_path) == found[1]


def test_what_is_missing_counts_as_changed(tmp_path: Path) -> None:
    found = written(tmp_path, 2, 4)
    (tmp_path / "step-000004" / "optimizer.pt").unlink()
    assert checkpoints.drop_damaged(tmp_path) == found[1:]


def test_those_of_which_only_losses_stay_are_looked_at_too(tmp_path: Path) -> None:
    found = written(tmp_path, 2, 4, 6)
    checkpoints.thin(found, keep=1, best=None)
    assert resumable(tmp_path) == [6]
    assert checkpoints.drop_damaged(tmp_path) == []
    (tmp_path / "step-000002" / LOSSES).write_text("others")
    assert checkpoints.drop_damaged(tmp_path) == found


def test_checkpoints_without_digests_are_taken_at_their_word(tmp_path: Path) -> None:
    found = written(tmp_path, 2)
    (tmp_path / "step-000002" / SUMS).unlink()
    assert checkpoints.drop_damaged(tmp_path) == []
    checkpoints.require_whole(found[0])


@pytest.mark.parametrize(
    ("room", "left"),
    [
        (None, [2, 6, 8, 10]),
        (10 * SIZE, [2, 6, 8, 10]),
        (3 * SIZE + 5_000, [2, 8, 10]),
        (2 * SIZE + 5_000, [2, 10]),
        (0, [2, 10]),
    ],
)
def test_the_newest_and_the_best_stay_and_of_others_what_there_is_room_for(
    room: int | None, left: list[int], tmp_path: Path
) -> None:
    checkpoints.thin(written(tmp_path, 2, 4, 6, 8, 10), keep=3, best=2, most=room)
    assert resumable(tmp_path) == left
    assert [checkpoint.step for checkpoint in checkpoints.find(tmp_path)] == [2, 4, 6, 8, 10]
