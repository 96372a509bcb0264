"""Faults around a run that a person can put right: a full disk, a damaged input. They decide nothing about the run."""

from __future__ import annotations

from pipeline.capacity.bases import folder_here, not_here
from pipeline.capacity.content import by_name, require_content
from pipeline.errors import RegistryError
from pipeline.home import Home, sha256_folder
from pipeline.runs.requests import RunRequest

FULL_DISK_WORDS = ("No space left on device", "Disk quota exceeded", "disk is full")
"""How the system and SQLite say it; errors of the databases and of the training process reach us as text alone."""


def tells_of_full_disk(message: str) -> bool:
    """Whether an error's text says that a disk, or a person's share of it, is full."""
    return any(words in message for words in FULL_DISK_WORDS)


def tells_of_lost_device(message: str) -> bool:
    """Whether an error's text says that the GPU that a run trains on is no longer there."""
    return message.startswith("the GPU is gone")


def require_inputs(home: Home, request: RunRequest) -> None:
    """Reads all that a run reads from, and raises ``ShardError``, ``RegistryError`` or ``RunError`` naming what is missing
    or was changed.

    Costs as much as reading every shard, so it is asked after a failure, to tell whose fault it was.
    """
    from pipeline.chunking.shards import verify_shard
    from pipeline.runs.runfiles import read_exclusions

    excluded = read_exclusions(home.run(request.run_id) / "exclusions.parquet").chunks
    for shard in request.shards:
        verify_shard(home.root / shard.path, shard.sha256, excluded=excluded)
    for adapter in (request.parent, request.champion, request.best):
        if adapter is not None:
            folder = home.root / adapter.path
            if not folder.is_dir() or sha256_folder(folder) != adapter.sha256:
                raise RegistryError(f"adapter {folder} is missing or was changed", hint="restore it from a backup")
    model, base = request.settings.model, request.base
    if base.kind == "external" and base.base_id != by_name(base.path, model.revision):
        here = folder_here(base.path, model.revision)
        if here is None:
            raise not_here(base.path)
        require_content(home, here, base.base_id)
