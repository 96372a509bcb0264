"""What made an adapter, by digest: receipt.json in the run's folder, chained to the receipt of the run it continued, and
signed with the home's key.

A receipt names every file that a run read or wrote, so that one changed byte in any of them, in the receipt itself or in a
receipt further up the lineage is found (``registry/verify.py``).
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.errors import RegistryError
from pipeline.home import Home, sha256_file, sha256_folder, write_atomic
from pipeline.runs.requests import RunRequest, RunResult, ShardRef
from pipeline.strict import Strict
from registry.gate import Verdict
from registry.signing import Signed, SigningKey, canonical

RECEIPT = "receipt.json"

VERSION = 2
"""2: files of folders one by one, and signed."""

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
"""Files of a run's folder that a receipt covers, in the order in which they are written. Checkpoints are pruned, what a
model wrote is text that may have to be erased, and the report is drawn from these, so none of them is covered."""

ALSO = ("replies.parquet", "questions.parquet")
"""Covered too where they are: runs of earlier versions left none."""


class Folder(Strict):
    """A folder relative to the home, its :func:`pipeline.home.sha256_folder`, and the sha256 of each of its files."""

    path: str
    sha256: str
    files: dict[str, str]


class Parent(Strict):
    """The run that was continued, and the sha256 of its receipt."""

    adapter_id: str
    run_id: str
    receipt_sha256: str


class Receipt(Signed):
    """Everything by digest. ``base`` is None where the base is not a folder of this home; ``verdict`` is the gate's, its
    policy included."""

    version: int = VERSION
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
        """Canonical JSON with its own digest, so that the same receipt is the same bytes and no other is."""
        fields = self.model_dump(mode="json")
        return canonical({**fields, "sha256": hashlib.sha256(self.told()).hexdigest()})

    @classmethod
    def from_bytes(cls, data: bytes) -> Receipt:
        """Reads what :meth:`to_bytes` gave; raises ``ValueError`` when one byte of it is another, or of another version."""
        fields = json.loads(data)
        if not isinstance(fields, dict):
            raise ValueError("not a receipt")
        if fields.get("version") != VERSION:
            raise ValueError(f"of version {fields.get('version')}, this program reads {VERSION}")
        fields.pop("sha256", None)
        receipt = cls.model_validate_json(json.dumps(fields))
        if receipt.to_bytes() != data or not receipt.is_signed:
            raise ValueError("not as it was written")
        return receipt


def build_receipt(
    home: Home, request: RunRequest, result: RunResult, verdict: Verdict, decided_at: datetime, *, parent_receipt: str = ""
) -> Receipt:
    """Digests what the run left, and signs that; raises ``RegistryError`` when a file is missing or the key cannot be read.

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
        adapter=_folder(home, adapter),
        shards=request.shards,
        files={name: sha256_file(folder / name) for name in (*FILES, *ALSO) if (folder / name).is_file()},
        environment=result.environment,
        verdict=json.loads(verdict.to_json()),
        signed_by="",
    ).signed(SigningKey.of(home))


def write_receipt(home: Home, receipt: Receipt) -> str:
    """Writes it into the run's folder; returns its sha256."""
    data = receipt.to_bytes()
    write_atomic(home.run(receipt.run_id) / RECEIPT, data)
    return hashlib.sha256(data).hexdigest()


def _base(home: Home, request: RunRequest) -> Folder | None:
    if request.base.kind != "builtin":
        return None
    folder = home.root / request.base.path
    if not folder.is_dir():
        raise RegistryError(f"the base {request.base.base_id} is missing at {folder}", hint="restore it from a backup")
    return _folder(home, folder)


def _folder(home: Home, path: Path) -> Folder:
    files = {file.relative_to(path).as_posix(): sha256_file(file) for file in sorted(path.rglob("*")) if file.is_file()}
    return Folder(path=path.relative_to(home.root).as_posix(), sha256=sha256_folder(path), files=files)
