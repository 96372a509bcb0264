"""What the adapter of a run is compared with: champion, parent, best and the bare base, and what of them is unmeasured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import RunError
from pipeline.home import Home, sha256_folder
from pipeline.runs.requests import AdapterRef, RunRequest, read_result
from pipeline.runs.runfiles import Loss
from retrain.training.batches import Example


@dataclass(frozen=True, slots=True)
class Reference:
    """An adapter's folder, or the bare base (``folder`` None), by the name that its losses bear."""

    adapter_id: str
    checkpoint: str
    folder: Path | None


def references(home: Home, request: RunRequest) -> list[Reference]:
    """The bare base, then champion, parent and best, each once. Raises ``RunError`` when an adapter is not as recorded."""
    found = [Reference(f"base:{request.base.base_id}", "", None)]
    adapters = {ref.adapter_id: ref for ref in (request.champion, request.parent, request.best) if ref is not None}
    for ref in adapters.values():
        found.append(Reference(ref.adapter_id, read_result(home.run(ref.run_id)).checkpoint, adapter_folder(home, ref)))
    return found


def adapter_folder(home: Home, ref: AdapterRef) -> Path:
    """The adapter's folder, verified."""
    folder = home.root / ref.path
    if not folder.is_dir() or sha256_folder(folder) != ref.sha256:
        raise RunError(
            f"adapter {ref.adapter_id} in {folder} is missing or not the one recorded",
            hint="restore the folder, or roll back to another adapter",
        )
    return folder


def unmeasured(reference: Reference, examples: Iterable[Example], known: Sequence[Loss], version: int) -> list[Example]:
    """The examples for which ``reference`` has no stored loss of this evaluation version over the same text."""
    have = {
        (loss.chunk_id, loss.n_bytes)
        for loss in known
        if (loss.adapter_id, loss.checkpoint, loss.eval_version) == (reference.adapter_id, reference.checkpoint, version)
    }
    return [example for example in examples if (example.chunk_id, example.n_bytes) not in have]


def of_references(losses: Iterable[Loss], wanted: Sequence[Reference], version: int) -> list[Loss]:
    """Those losses that are of one of ``wanted`` and of this evaluation version."""
    names = {(reference.adapter_id, reference.checkpoint) for reference in wanted}
    return [loss for loss in losses if (loss.adapter_id, loss.checkpoint) in names and loss.eval_version == version]
