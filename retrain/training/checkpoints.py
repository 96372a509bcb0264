"""Checkpoint folders ``step-000050``: whole or not there, found again after any crash, with digests of what was written,
thinned when superseded."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import RunError
from pipeline.home import fsync_dir, private_dir, sha256_file
from retrain.models.adapters import WEIGHTS

NAME = re.compile(r"step-(\d{6,})")

STATE = "trainer_state.json"
LOSSES = "losses.parquet"
"""Losses on val at that step; kept when the rest of a superseded checkpoint goes."""
SUMS = "sha256.json"
"""The digest of every other file, by name; kept, too. Checkpoints of earlier versions have none."""

PROBE_MIB = 4
"""What a disk must still take for it not to be called full."""


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

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return sum(path.stat().st_size for path in self.folder.iterdir())

    def damaged(self) -> list[str]:
        """The files that are not as they were written, in a thinned checkpoint of those that stayed."""
        path = self.folder / SUMS
        if not path.is_file():
            return []
        try:
            digests = dict(json.loads(path.read_bytes()))
        except (ValueError, TypeError):
            return [SUMS]
        names = digests if self.resumable else (LOSSES,)
        return [name for name in names if not _is_as_written(self.folder / name, digests.get(name))]


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


def drop_damaged(folder: Path) -> list[Checkpoint]:
    """Removes the first checkpoint that is not as it was written, and all after it; returns them. Training makes them
    again, with the same bytes, from the one before."""
    found = find(folder)
    first = next((place for place, checkpoint in enumerate(found) if checkpoint.damaged()), len(found))
    for checkpoint in reversed(found[first:]):
        shutil.rmtree(checkpoint.folder)
    return found[first:]


def require_whole(checkpoint: Checkpoint) -> None:
    """Raises ``RunError`` when the checkpoint is not as it was written."""
    damaged = checkpoint.damaged()
    if damaged:
        raise RunError(
            f"{checkpoint.folder / damaged[0]} was changed since it was written",
            hint="see whether the disk is sound; the next run learns these windows again",
        )


def partial(folder: Path) -> Path:
    """An empty folder in which a checkpoint is written before it gets its name."""
    path = folder / ".partial"
    shutil.rmtree(path, ignore_errors=True)
    return private_dir(path)


@contextmanager
def telling_of_a_full_disk(folder: Path) -> Iterator[None]:
    """Raises ``OSError`` where ``folder`` takes no more, within which torch's writer raises a ``RuntimeError`` about a
    position that it did not expect."""
    try:
        yield
    except RuntimeError:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
            for _ in range(PROBE_MIB):
                probe.write(bytes(1 << 20))
        raise


def complete(written: Path, folder: Path, step: int) -> Checkpoint:
    """Makes a written checkpoint durable and gives it its name: from here on it exists."""
    digests = {path.name: sha256_file(path) for path in sorted(written.iterdir())}
    (written / SUMS).write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")
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


def thin(checkpoints: list[Checkpoint], keep: int, best: int | None, most: int | None = None) -> None:
    """Frees all but the newest ``keep`` checkpoints and that of step ``best``; their losses stay. Of these the oldest go
    too while they take more than ``most`` bytes together; the newest and the best stay whatever they take."""
    freed = [checkpoint for checkpoint in checkpoints[:-keep] if checkpoint.step != best]
    if most is not None:
        held = {checkpoint: checkpoint.size for checkpoint in checkpoints if checkpoint not in freed}
        for checkpoint in checkpoints[-keep:-1]:
            if sum(held.values()) > most and checkpoint.step != best:
                freed.append(checkpoint)
                del held[checkpoint]
    for checkpoint in freed:
        (checkpoint.folder / STATE).unlink(missing_ok=True)  # first: without it nothing goes on from what is left
        for path in checkpoint.folder.iterdir():
            if path.name not in (LOSSES, SUMS):
                path.unlink()


def _is_as_written(path: Path, digest: str | None) -> bool:
    return path.is_file() and sha256_file(path) == digest
