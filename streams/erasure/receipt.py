"""What was erased, by ids, digests and counts, signed by the home's key: ``erasures/ERASURE_ID.json``."""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from pipeline.chunking.shards import TEXT
from pipeline.config.settings import Settings
from pipeline.errors import RegistryError
from pipeline.home import Home, sha256_file, write_atomic
from registry.signing import Signed, SigningKey, canonical
from streams.erasure.plan import Plan


class ErasureReceipt(Signed):
    """``plan`` says what was to go, ``texts`` which digest each window's text.parquet has since. ``elsewhere`` is what no
    part of this home could erase, in sentences."""

    version: int = 1
    plan: Plan
    finished_at: datetime
    texts: dict[int, str]
    retrain: str
    elsewhere: tuple[str, ...]


def path_of(home: Home, erasure_id: str) -> Path:
    return home.root / "erasures" / f"{erasure_id}.json"


def write(home: Home, settings: Settings, plan: Plan, retrain: str, now: datetime) -> str:
    """Writes the receipt; returns its sha256."""
    shards = {idx: home.shard(plan.mailbox, idx) / TEXT for idx in plan.chunks}
    receipt = ErasureReceipt(
        plan=plan,
        finished_at=now,
        texts={idx: sha256_file(path) for idx, path in shards.items() if path.is_file()},
        retrain=retrain,
        elsewhere=elsewhere(home, settings),
        signed_by="",
    ).signed(SigningKey.of(home))
    data = canonical(receipt.model_dump(mode="json"))
    write_atomic(path_of(home, plan.erasure_id), data)
    return hashlib.sha256(data).hexdigest()


def read(home: Home, erasure_id: str) -> ErasureReceipt:
    """Reads a receipt; raises ``RegistryError`` where there is none, or not as it was written."""
    path = path_of(home, erasure_id)
    try:
        receipt = ErasureReceipt.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise RegistryError(
            f"{path} cannot be read ({str(error).splitlines()[0]})", hint="restore it from a backup"
        ) from error
    if not receipt.is_signed:
        raise RegistryError(f"{path} was changed after it was written", hint="restore it from a backup")
    return receipt


def receipts(home: Home) -> list[ErasureReceipt]:
    """All of a home; raises as :func:`read` does."""
    return [read(home, path.stem) for path in sorted((home.root / "erasures").glob("e*.json"))]


def elsewhere(home: Home, settings: Settings) -> tuple[str, ...]:
    """Where copies may be that this home cannot reach."""
    told = ["the source of the mail (mail server, mbox, Maildir) and backups of this home are untouched"]
    if settings.bus.kind == "kafka":
        told.append(
            "records on the broker's mail topics cannot be erased; they go with the retention of the topics, "
            f"{settings.bus.retention_days:g} days after they were written, dead letters as their topics say"
        )
    return tuple(told)
