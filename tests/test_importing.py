"""An adapter from another home: taken in whole when every byte, signer, base and rank are right, else not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from pipeline.errors import MailtideError, NothingToDo, RegistryError, UsageError
from pipeline.home import sha256_folder, write_atomic
from pipeline.runs.requests import BaseRef
from pipeline.sampling.coverage import read_coverage, windows_trained
from pipeline.store.rows import AdapterRow, JournalRow
from registry.byhand import promote
from registry.decide import journal
from registry.decided import request_of
from registry.exporting import SUMS, export_adapter
from registry.importing import CONFIG, WEIGHTS, Terms, import_adapter, imported
from registry.journal import Status
from registry.lineage import lineage
from registry.receipt import RECEIPT, Receipt
from registry.signing import SigningKey
from registry.verify import recorded, verify_imported
from tests.support.finished import Finished, flip_a_byte
from tests.support.lineage import MAILBOX

NOW = datetime(2026, 5, 1)
BASE = BaseRef(kind="builtin", base_id="base", path=f"bases/{MAILBOX}/base")


def weights(rank: int) -> bytes:
    """A safetensors file with one pair of LoRA matrices."""
    shapes = {"base_model.x.lora_A.weight": [rank, 4], "base_model.x.lora_B.weight": [4, rank]}
    size = 16 * rank
    header = json.dumps(
        {
            name: {"dtype": "F32", "shape": shape, "data_offsets": [place * size, (place + 1) * size]}
            for place, (name, shape) in enumerate(shapes.items())
        }
    ).encode()
    return struct.pack("<Q", len(header)) + header + bytes(2 * size)


@dataclass
class Exported:
    """An adapter that one home exported, the other home, and the first one's key."""

    folder: Path
    there: Finished
    receipt: Receipt
    key: str

    def take(self, terms: Terms | None = None, signed_by: str | None = "") -> Receipt:
        signer = self.key if signed_by == "" else signed_by
        own = terms or Terms(MAILBOX, BASE, 16)
        store = self.there.store
        return import_adapter(store, self.there.home, self.folder, own, signed_by=signer, now=NOW, actor="owner")


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the home ``here`` and what it ``exported``; nobody writes there."""
    root = tmp_path_factory.mktemp("exporter")
    here = Finished.at(root / "here")
    here.close_window()
    asked = here.request()
    result = here.finish(asked, new=-0.2)
    adapter = here.home.adapter(asked.adapter_id)
    write_atomic(adapter / WEIGHTS, weights(16))
    write_atomic(adapter / CONFIG, json.dumps({"peft_type": "LORA", "r": 16}).encode())
    result = result.model_copy(update={"adapter_sha256": sha256_folder(adapter)})
    write_atomic(here.home.run(asked.run_id) / "result.json", result.model_dump_json().encode())
    here.decide(asked, result)
    export_adapter(here.home, asked.run_id, root / "exported", recorded(here.store, asked.run_id))
    here.store.close()
    return root


@pytest.fixture
def exported(export: Path, tmp_path: Path) -> Iterator[Exported]:
    folder = tmp_path / "exported"
    shutil.copytree(export / "exported", folder)
    there = Finished.at(tmp_path / "there")
    receipt = Receipt.from_bytes((folder / RECEIPT).read_bytes())
    yield Exported(folder, there, receipt, SigningKey.read(export / "here" / "signing.key").public)
    there.store.close()


def test_it_becomes_a_candidate_that_a_person_may_promote_and_a_run_may_continue(exported: Exported) -> None:
    adapter_id = exported.take().adapter_id
    store, home = exported.there.store, exported.there.home
    assert journal(store).adapter(adapter_id).status is Status.CANDIDATE
    assert journal(store).champion(MAILBOX) is None
    (row,) = store.fetch(AdapterRow)
    assert row.sha256 == sha256_folder(home.adapter(adapter_id)) and row.parent_adapter is None
    (entry,) = store.fetch(JournalRow)
    assert entry.reason.startswith("imported; made by run") and exported.key[:16] in entry.reason
    (step,) = lineage(store, adapter_id).steps
    assert step.imported and not step.windows
    coverage = read_coverage(home.run(exported.receipt.run_id) / "coverage.parquet")
    assert windows_trained(coverage) == frozenset(), "every window of this home is new to it"
    kept = imported(home, exported.receipt.run_id)
    assert kept is not None and (kept.base, kept.signed_by) == (BASE, exported.key)
    assert verify_imported(home, row) == []
    promote(store, home, MAILBOX, adapter_id, "it is good", "owner", NOW)
    assert journal(store).champion(MAILBOX) == adapter_id


def test_why_it_was_promoted_is_known_where_it_was_made(exported: Exported) -> None:
    adapter_id = exported.take().adapter_id
    with pytest.raises(UsageError, match=f"{adapter_id} was imported: .* in the home that made it"):
        request_of(exported.there.store, adapter_id)


def test_twice_is_nothing(exported: Exported) -> None:
    exported.take()
    with pytest.raises(NothingToDo, match="is in this home already"):
        exported.take()


def test_verify_names_the_file_of_an_imported_adapter_that_was_changed(exported: Exported) -> None:
    adapter_id = exported.take().adapter_id
    (row,) = exported.there.store.fetch(AdapterRow)
    flip_a_byte(exported.there.home.adapter(adapter_id) / WEIGHTS)
    (problem,) = verify_imported(exported.there.home, row)
    assert problem.startswith(f"{exported.there.home.adapter(adapter_id) / WEIGHTS} was changed")
    flip_a_byte(exported.there.home.run(row.run_id) / RECEIPT)
    assert "changed after it was written" in verify_imported(exported.there.home, row)[0]


def change_weights(folder: Path) -> None:
    flip_a_byte(folder / WEIGHTS)


def change_receipt(folder: Path) -> None:
    flip_a_byte(folder / RECEIPT)


def lose_config(folder: Path) -> None:
    (folder / CONFIG).unlink()


def add_code(folder: Path) -> None:
    (folder / "model.bin").write_bytes(b"pickle")


def add_link(folder: Path) -> None:
    (folder / "more.json").symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (change_weights, rf"{WEIGHTS} was changed"),
        (change_receipt, RECEIPT),
        (lose_config, rf"{CONFIG} is missing"),
        (add_code, r"model\.bin was added"),
        (add_link, "is a link"),
    ],
)
def test_what_is_not_as_it_was_exported_is_refused_with_the_culprit(
    exported: Exported, spoil: Callable[[Path], None], why: str
) -> None:
    spoil(exported.folder)
    refused(exported, exported.take, RegistryError, why)


def test_an_unknown_signer_is_refused_and_named(exported: Exported) -> None:
    refused(
        exported, lambda: exported.take(signed_by=None), RegistryError, f"signed by {exported.key}, which is not this home"
    )
    refused(exported, lambda: exported.take(signed_by="ab" * 32), RegistryError, "which is not that key")


@pytest.mark.parametrize(
    ("terms", "why"),
    [
        (Terms(MAILBOX, BASE.model_copy(update={"base_id": "b999"}), 16), "stands on base base, and main on b999"),
        (Terms(MAILBOX, BASE, 32), "has rank 16, the settings ask for 32"),
    ],
)
def test_another_base_or_rank_is_refused(exported: Exported, terms: Terms, why: str) -> None:
    refused(exported, lambda: exported.take(terms), RegistryError, why)


def test_a_base_of_the_same_name_with_other_bytes_is_refused(exported: Exported) -> None:
    flip_a_byte(exported.there.home.root / BASE.path / "model.safetensors")
    refused(exported, exported.take, RegistryError, "with other bytes")
    shutil.rmtree(exported.there.home.root / BASE.path)
    refused(exported, exported.take, RegistryError, "is not here")


def test_a_folder_that_is_no_export_is_refused(exported: Exported, tmp_path: Path) -> None:
    shutil.rmtree(exported.folder)
    exported.folder.mkdir()
    refused(exported, exported.take, UsageError, "holds no receipt")


def test_a_configuration_that_says_another_rank_than_the_weights_is_refused(exported: Exported) -> None:
    lying = weights(8)
    (exported.folder / WEIGHTS).write_bytes(lying)
    resign(exported)
    refused(exported, exported.take, RegistryError, "has rank 8 and 16")
    (exported.folder / WEIGHTS).write_bytes(b"\xff" * 64)
    resign(exported)
    refused(exported, exported.take, RegistryError, "no adapter that PEFT could load")


def resign(exported: Exported) -> None:
    """A receipt that fits the folder, signed with another key: what somebody with bad intent could send."""
    names = exported.receipt.adapter.files
    files = {name: hashlib.sha256((exported.folder / name).read_bytes()).hexdigest() for name in names}
    adapter = exported.receipt.adapter.model_copy(update={"files": files})
    key = SigningKey(b"s" * 32)
    forged = exported.receipt.model_copy(update={"adapter": adapter}).signed(key)
    (exported.folder / RECEIPT).write_bytes(forged.to_bytes())
    (exported.folder / SUMS).write_text("")
    object.__setattr__(exported, "key", key.public)


def refused(exported: Exported, attempt: Callable[[], object], kind: type[MailtideError], why: str) -> None:
    """Refused with that reason, and nothing half-done."""
    with pytest.raises(kind, match=why):
        attempt()
    home, store = exported.there.home, exported.there.store
    assert not store.fetch(AdapterRow) and not store.fetch(JournalRow)
    assert not home.adapter(exported.receipt.adapter_id).exists()
    assert not home.run(exported.receipt.run_id).exists()


def test_a_run_of_this_home_is_not_taken_for_an_import(exported: Exported) -> None:
    assert imported(exported.there.home, "000000000000") is None
