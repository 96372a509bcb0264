"""Checkpoint folders ``step-000050``: whole or not there, found again after any crash, thinned when superseded."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline.home import fsync_dir, private_dir
from retrain.models.adapters import WEIGHTS

NAME = re.compile(r"step-(\d{6,})")

STATE = "trainer_state.json"
LOSSES = "losses.parquet"
"""Losses on val at that step; kept when the rest of a superseded checkpoint goes."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    step: int
    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def resumable(self) -> bool:
        """Whether training can go on from here: a thinned checkpoint only remembers its losses."""
        return (self.folder / STATE).is_file() and (self.folder / WEIGHTS).is_file()


def name_of(step: int) -> str:
    return f"step-{step:06d}"


def find(folder: Path) -> list[Checkpoint]:
    """The checkpoints in ``folder``, oldest first. What a crash left half-written has another name and is removed."""
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        match = NAME.fullmatch(path.name)
        if match:
            found.append(Checkpoint(int(match[1]), path))
        elif path.is_dir():
            shutil.rmtree(path)
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def newest_whole(folder: Path) -> Checkpoint | None:
    """The checkpoint from which training goes on."""
    return next((checkpoint for checkpoint in reversed(find(folder)) if checkpoint.resumable), None)


def partial(folder: Path) -> Path:
    """An empty folder in which a checkpoint is written before it gets its name."""
    path = folder / ".partial"
    shutil.rmtree(path, ignore_errors=True)
    return private_dir(path)


def complete(written: Path, folder: Path, step: int) -> Checkpoint:
    """Makes a written checkpoint durable and gives it its name: from here on it exists."""
    seal(written)
    target = folder / name_of(step)
    written.replace(target)
    fsync_dir(folder)
    return Checkpoint(step, target)


def seal(folder: Path) -> None:
    """Private modes and fsync for everything in ``folder``, which is about to be renamed into place."""
    for path in sorted(folder.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
        with_fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(with_fd)
        finally:
            os.close(with_fd)
    folder.chmod(0o700)
    fsync_dir(folder)


def thin(checkpoints: list[Checkpoint], keep: int, best: int | None) -> None:
    """Frees all but the newest ``keep`` checkpoints and that of step ``best``; their losses stay."""
    for checkpoint in checkpoints[:-keep]:
        if checkpoint.step != best:
            for path in checkpoint.folder.iterdir():
                if path.name != LOSSES:
                    path.unlink()
