"""What made an adapter, by digest: receipt.json in the run's folder, chained to the receipt of the run it continued.

A receipt names every file that a run read or wrote. One changed byte in any of them, in the receipt itself or in a
receipt further up the lineage is found by :func:`verify`. Texts may have been erased since: that is not a change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipeline.errors import MailtideError, RegistryError
from pipeline.home import Home, sha256_file, sha256_folder, write_atomic
from pipeline.requests import RunRequest, RunResult, ShardRef
from registry.gate import Verdict

RECEIPT = "receipt.json"

FILES = (
    "request.json",
    "exclusions.parquet",
    "known_losses.parquet",
    "manifest.parquet",
    "schedule.parquet",
    "metrics.jsonl",
    "losses.parquet",
    "eval_results.json",
    "best_checkpoint.txt",
    "coverage.parquet",
    "result.json",
)
"""Files of a run's folder that a receipt covers, in the order in which they are written. Checkpoints are pruned and the
report is drawn from these, so neither is covered."""


class Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Folder(Frozen):
    """A folder relative to the home and its :func:`pipeline.home.sha256_folder`."""

    path: str
    sha256: str


class Parent(Frozen):
    """The run that was continued, and the sha256 of its receipt."""

    adapter_id: str
    run_id: str
    receipt_sha256: str


class Receipt(Frozen):
    """Everything by digest. ``base`` is None where the base is not a folder of this home; ``verdict`` is the gate's."""

    version: int = 1
    run_id: str
    mailbox: str
    adapter_id: str
    decided_at: datetime
    parent: Parent | None
    base_id: str
    base: Folder | None
    adapter: Folder
    shards: tuple[ShardRef, ...]
    files: dict[str, str]
    environment: dict[str, str]
    verdict: dict[str, Any]

    def to_bytes(self) -> bytes:
        """Canonical JSON that ends with its own digest, so that the same receipt is the same bytes and no other is."""
        fields = self.model_dump(mode="json")
        fields["sha256"] = hashlib.sha256(_canonical(fields)).hexdigest()
        return _canonical(fields)

    @classmethod
    def from_bytes(cls, data: bytes) -> Receipt:
        """Reads what :meth:`to_bytes` gave; raises ``ValueError`` when one byte of it is another."""
        fields = json.loads(data)
        if not isinstance(fields, dict):
            raise ValueError("not a receipt")
        fields.pop("sha256", None)
        receipt = cls.model_validate_json(json.dumps(fields))
        if receipt.to_bytes() != data:
            raise ValueError("not as it was written")
        return receipt


def build_receipt(
    home: Home, request: RunRequest, result: RunResult, verdict: Verdict, decided_at: datetime, *, parent_receipt: str = ""
) -> Receipt:
    """Digests what the run left; raises ``RegistryError`` when a file is missing.

    ``parent_receipt`` is the sha256 that was recorded of the parent run's receipt ("" without a parent).
    """
    above = request.parent
    folder = home.run(request.run_id)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise RegistryError(
            f"run {request.run_id} lacks {', '.join(missing)}", hint="run `mailtide retrain --confirm` to finish it"
        )
    adapter = home.adapter(result.adapter_id)
    return Receipt(
        run_id=request.run_id,
        mailbox=request.mailbox,
        adapter_id=result.adapter_id,
        decided_at=decided_at,
        parent=Parent(adapter_id=above.adapter_id, run_id=above.run_id, receipt_sha256=parent_receipt) if above else None,
        base_id=request.base.base_id,
        base=_base(home, request),
        adapter=Folder(path=adapter.relative_to(home.root).as_posix(), sha256=sha256_folder(adapter)),
        shards=request.shards,
        files={name: sha256_file(folder / name) for name in FILES},
        environment=result.environment,
        verdict=json.loads(verdict.to_json()),
    )


def write_receipt(home: Home, receipt: Receipt) -> str:
    """Writes it into the run's folder; returns its sha256."""
    data = receipt.to_bytes()
    write_atomic(home.run(receipt.run_id) / RECEIPT, data)
    return hashlib.sha256(data).hexdigest()


def verify(home: Home, run_id: str, *, recorded: str | None = None, erased: Collection[str] = ()) -> list[str]:
    """Problems of a run's files, one sentence each; none when every byte is as it was.

    ``recorded`` is the sha256 that the store keeps of the receipt, without which a receipt and its files could be changed
    together. ``erased`` are chunk ids whose text may be gone besides those that the run excluded. The receipts of the
    lineage are checked up to the base, their files only when asked for by their own ``run_id``.
    """
    path = home.run(run_id) / RECEIPT
    if not path.is_file():
        return [f"{path} is missing"]
    data = path.read_bytes()
    problems = []
    if recorded is not None and hashlib.sha256(data).hexdigest() != recorded:
        problems.append(f"{path} is not the one that the store recorded")
    try:
        receipt = Receipt.from_bytes(data)
    except ValueError:
        return [*problems, f"{path} was changed after it was written"]
    if receipt.run_id != run_id:
        return [*problems, f"{path} is the receipt of another run, {receipt.run_id}"]
    problems += [
        problem
        for name, sha256 in receipt.files.items()
        if (problem := _changed(home.run(run_id) / name, sha256, sha256_file))
    ]
    folders = [receipt.adapter] if receipt.base is None else [receipt.adapter, receipt.base]
    problems += [
        problem for folder in folders if (problem := _changed(home.root / folder.path, folder.sha256, sha256_folder))
    ]
    problems += _shard_problems(home, receipt, erased)
    return problems + _chain_problems(home, receipt)


def _canonical(fields: dict[str, Any]) -> bytes:
    return (json.dumps(fields, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


def _base(home: Home, request: RunRequest) -> Folder | None:
    if request.base.kind != "builtin":
        return None
    folder = home.root / request.base.path
    if not folder.is_dir():
        raise RegistryError(f"the base {request.base.base_id} is missing at {folder}", hint="restore it from a backup")
    return Folder(path=request.base.path, sha256=sha256_folder(folder))


def _changed(path: Path, sha256: str, digest: Callable[[Path], str]) -> str | None:
    if not path.exists():
        return f"{path} is missing"
    return None if digest(path) == sha256 else f"{path} was changed: its sha256 is not the one in the receipt"


def _shard_problems(home: Home, receipt: Receipt, erased: Collection[str]) -> list[str]:
    from pipeline.runfiles import read_exclusions
    from pipeline.shards import read_meta, verify_shard

    problems: list[str] = []
    try:
        excluded = read_exclusions(home.run(receipt.run_id) / "exclusions.parquet")
    except MailtideError as error:
        return [error.message]
    for shard in receipt.shards:
        folder = home.root / shard.path
        try:
            meta = read_meta(folder, shard.sha256, columns=("chunk_id", "thread_id")).to_pylist()
            gone = {row["chunk_id"] for row in meta if excluded.hold(row["thread_id"], row["chunk_id"])}
            verify_shard(folder, shard.sha256, excluded=gone | set(erased))
        except MailtideError as error:
            problems.append(error.message)
    return problems


def _chain_problems(home: Home, receipt: Receipt) -> list[str]:
    """Follows the receipts upwards: each must be, byte for byte, the one that its child saw."""
    parent = receipt.parent
    while parent is not None:
        path = home.run(parent.run_id) / RECEIPT
        if (problem := _changed(path, parent.receipt_sha256, sha256_file)) is not None:
            return [problem]
        parent = Receipt.from_bytes(path.read_bytes()).parent
    return []
