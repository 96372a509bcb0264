"""An adapter that another home exported, taken into this one: checked byte by byte, and a candidate like any other.

It comes with its receipt and without its mail, so its lineage begins here with where it came from. It stands on the base
that this mailbox's runs stand on, or it is refused. It never serves by itself: a person promotes it, and the next run
continues it with every window of this home still to learn.

    adapters/ADAPTER_ID/     as exported
    runs/RUN_ID/             receipt.json as exported, imported.json, and a coverage and a result that say so
"""

from __future__ import annotations

import json
import shutil
import struct
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import NothingToDo, RegistryError, UsageError
from pipeline.home import Home, fsync_dir, private_dir, sha256_file, sha256_folder, write_atomic
from pipeline.parquet import with_note
from pipeline.runs.requests import RESULT, BaseRef, RunResult
from pipeline.sampling.coverage import COVERAGE_SCHEMA, write_coverage
from pipeline.store import Store
from pipeline.store.rows import AdapterRow, RequestRow
from pipeline.strict import Strict
from registry.decide import journal
from registry.exporting import HARMLESS, SUMS
from registry.journal import Happening, append_event
from registry.receipt import RECEIPT, Receipt
from registry.signing import SigningKey

NOTE = "imported.json"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MOST_HEADER = 50_000_000


class Imported(Strict):
    """What is kept of an import. ``base`` is this home's."""

    adapter_id: str
    signed_by: str
    at: datetime
    base: BaseRef


@dataclass(frozen=True, slots=True)
class Terms:
    """What an adapter must fit: the mailbox, the base that its runs stand on, and the rank that runs continue with."""

    mailbox: str
    base: BaseRef
    rank: int


def import_adapter(
    store: Store, home: Home, folder: Path, terms: Terms, *, signed_by: str | None, now: datetime, actor: str
) -> Receipt:
    """Takes an exported folder in as a candidate, whole or not at all; returns its receipt.

    ``signed_by`` is the public key that the receipt must be signed with (None: this home's own). Raises ``RegistryError``
    when a byte is another, a file could run code, the signer is another, or base or rank do not fit; ``NothingToDo`` when
    the adapter is here already; ``UsageError`` when the folder is no export.
    """
    receipt = _receipt(folder)
    _require_signer(home, receipt, signed_by)
    _require_files(folder, receipt)
    _require_base(home, receipt, terms)
    _require_rank(folder, terms.rank)
    if store.fetch(AdapterRow, "adapter_id = ?", [receipt.adapter_id]):
        raise NothingToDo(f"adapter {receipt.adapter_id} is in this home already", hint="see `mailtide registry list`")
    if store.fetch(RequestRow, "run_id = ?", [receipt.run_id]):
        raise RegistryError(f"run {receipt.run_id} is one of this home", hint="finish it: `mailtide retrain --confirm`")
    _copy_adapter(home, folder, receipt)
    _write_run(home, folder, receipt, terms.base, now)
    entry = append_event(
        journal(store),
        mailbox=terms.mailbox,
        adapter_id=receipt.adapter_id,
        event=Happening.REGISTERED,
        reason=f"imported; made by run {receipt.run_id} of another home, whose receipt {receipt.signed_by[:16]} signed",
        actor=actor,
        at=now,
    )
    adapter = AdapterRow(
        adapter_id=receipt.adapter_id,
        mailbox=terms.mailbox,
        run_id=receipt.run_id,
        base_id=receipt.base_id,
        parent_adapter=None,
        created_at=now,
        sha256=receipt.adapter.sha256,
        safety_flags=0,
    )
    store.append([adapter, entry])
    return receipt


def imported(home: Home, run_id: str) -> Imported | None:
    """What is kept of an import; None for a run of this home."""
    try:
        return Imported.model_validate_json((home.run(run_id) / NOTE).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RegistryError(f"{home.run(run_id) / NOTE} cannot be read", hint="import the adapter again") from error


def _receipt(folder: Path) -> Receipt:
    path = folder / RECEIPT
    try:
        return Receipt.from_bytes(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"{folder} holds no {RECEIPT}", hint="name a folder that `mailtide registry export` made"
        ) from error
    except ValueError as error:
        raise RegistryError(f"{path} is {str(error).splitlines()[0]}", hint="export the adapter again") from error


def _require_signer(home: Home, receipt: Receipt, signed_by: str | None) -> None:
    trusted = signed_by or (SigningKey.read(home.signing_key).public if home.signing_key.exists() else "")
    if receipt.signed_by != trusted:
        raise RegistryError(
            f"the receipt was signed by {receipt.signed_by}, which is not {'that key' if signed_by else 'this home'}",
            hint="ask the other home's keeper for its key, and if it is this one give it with --signed-by",
        )


def _require_files(folder: Path, receipt: Receipt) -> None:
    """Every file of the receipt, byte for byte, and no other; nothing that could run code, and no link to elsewhere."""
    known = {**receipt.adapter.files, RECEIPT: "", SUMS: ""}
    for name in known:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise RegistryError(f"the receipt names {name}, which is outside of the folder", hint="do not use that export")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise RegistryError(f"{path} is a link", hint="export the adapter again")
        if path.is_file() and name not in known:
            raise RegistryError(f"{path} was added: the receipt does not know it", hint="remove it, or export again")
    for name, sha256 in receipt.adapter.files.items():
        if PurePosixPath(name).suffix not in HARMLESS:
            raise RegistryError(f"{folder / name} is no safetensors", hint="only adapters in safetensors are imported")
        if not (folder / name).is_file():
            raise RegistryError(f"{folder / name} is missing", hint="export the adapter again")
        if sha256_file(folder / name) != sha256:
            raise RegistryError(
                f"{folder / name} was changed: its sha256 is not the one in the receipt", hint="export the adapter again"
            )


def _require_base(home: Home, receipt: Receipt, terms: Terms) -> None:
    if receipt.base_id != terms.base.base_id:
        raise RegistryError(
            f"the adapter stands on base {receipt.base_id}, and {terms.mailbox} on {terms.base.base_id}",
            hint="an adapter is of use only on the base that it was trained on",
        )
    if receipt.base is None or terms.base.kind != "builtin":
        return
    own = home.root / terms.base.path
    if not own.is_dir() or sha256_folder(own) != receipt.base.sha256:
        raise RegistryError(
            f"the base {receipt.base_id} is not here, or with other bytes than where the adapter was made",
            hint="copy its folder from the home that exported the adapter",
        )


def _require_rank(folder: Path, rank: int) -> None:
    """Rank by configuration and by the weights themselves, whose header is read without loading one."""
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        shapes = _shapes(folder / WEIGHTS)
    except (OSError, ValueError, struct.error, KeyError, TypeError, AttributeError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RegistryError(f"{folder} holds no adapter that PEFT could load ({why})", hint="export it again") from error
    if config.get("peft_type") != "LORA" or not any(".lora_A." in name for name in shapes):
        raise RegistryError(f"{folder} holds no LoRA adapter", hint="only those are imported")
    found = {shape[0] for name, shape in shapes.items() if ".lora_A." in name} | {int(config.get("r", 0))}
    if found != {rank}:
        told = " and ".join(map(str, sorted(found)))
        raise RegistryError(
            f"the adapter has rank {told}, the settings ask for {rank}",
            hint=f"a run could not continue it; set train.lora_r to {told}, or import another",
        )


def _shapes(weights: Path) -> dict[str, list[int]]:
    """Shapes by tensor of a safetensors file: eight bytes of length, then so much JSON."""
    with weights.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > MOST_HEADER:
            raise ValueError(f"a header of {length} bytes")
        header: dict[str, Any] = json.loads(file.read(length))
    size = weights.stat().st_size - 8 - length
    tensors = {name: told for name, told in header.items() if name != "__metadata__"}
    if any(not 0 <= told["data_offsets"][0] <= told["data_offsets"][1] <= size for told in tensors.values()):
        raise ValueError("a tensor lies outside of its file")
    return {name: [int(length) for length in told["shape"]] for name, told in tensors.items()}


def _copy_adapter(home: Home, folder: Path, receipt: Receipt) -> None:
    kept = home.adapter(receipt.adapter_id)
    made = private_dir(kept.parent) / f".{kept.name}.tmp"
    for old in (made, kept):
        shutil.rmtree(old, ignore_errors=True)  # what a crash left: no row knows it
    for name in receipt.adapter.files:
        target = made / name
        private_dir(target.parent)
        shutil.copyfile(folder / name, target)
        target.chmod(0o600)
    if sha256_folder(made) != receipt.adapter.sha256:
        shutil.rmtree(made)
        raise RegistryError("the copy of the adapter is not what was copied", hint="look at the disk, then try again")
    made.replace(kept)
    fsync_dir(kept.parent)


def _write_run(home: Home, folder: Path, receipt: Receipt, base: BaseRef, now: datetime) -> None:
    """What others look up of the run that made an adapter. Of this home's windows it has trained none."""
    run = private_dir(home.run(receipt.run_id))
    write_atomic(run / RECEIPT, (folder / RECEIPT).read_bytes())
    write_coverage(run / "coverage.parquet", with_note(COVERAGE_SCHEMA.empty_table(), {"windows": []}))
    result = RunResult(
        run_id=receipt.run_id,
        adapter_id=receipt.adapter_id,
        adapter_sha256=receipt.adapter.sha256,
        checkpoint="imported",
        started_at=now,
        finished_at=now,
        steps=0,
        tokens=0,
        new_chunks=0,
        rehearsal_chunks=0,
        seconds={},
        environment=receipt.environment,
    )
    write_atomic(run / RESULT, result.model_dump_json().encode())
    note = Imported(adapter_id=receipt.adapter_id, signed_by=receipt.signed_by, at=now, base=base)
    write_atomic(run / NOTE, note.model_dump_json().encode())
