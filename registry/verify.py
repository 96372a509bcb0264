"""Whether everything that a receipt speaks of is still as it was, byte for byte, and which file is not.

A receipt answers for the run's files, adapter, base and shards; the store, for the receipt itself, the request, the verdict
and the texts; the home's key, for who wrote it. Texts may have been erased since, and adapters and bases that learned from
them: that is no change.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.capacity.bases import folder_here
from pipeline.capacity.content import OnRead, by_name, content_of, require_content
from pipeline.chunking.shards import TEXT, read_meta, verify_shard
from pipeline.errors import MailtideError, RegistryError, RunError
from pipeline.home import Home, sha256_file
from pipeline.runs.requests import REQUEST, RunRequest, ShardRef, read_request
from pipeline.runs.runfiles import Exclusions, read_exclusions
from pipeline.store import Store
from pipeline.store.rows import AdapterRow, ErasureRow, ExclusionRow, RequestRow, RunEventRow, ShardRow
from registry.named import no_run
from registry.receipt import RECEIPT, Folder, Receipt
from registry.signing import SigningKey


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the store keeps of a run: without it, a receipt and its files could be changed together. What it does not keep
    is None. ``texts`` are digests of ``text.parquet`` by window, as first written; ``excluded`` is all that may be erased,
    ``erased`` the folders of adapters and bases that were.
    """

    receipt_sha256: str | None = None
    request: str | None = None
    verdict: Mapping[str, Any] | None = None
    adapter_sha256: str | None = None
    texts: Mapping[int, str] = field(default_factory=dict)
    excluded: Exclusions = field(default_factory=Exclusions)
    erased: frozenset[str] = frozenset()


def recorded(store: Store, run_id: str) -> Recorded:
    """What the store keeps of a decided run; raises ``UsageError`` when there is no such run."""
    rows = store.fetch(RequestRow, "run_id = ?", [run_id])
    if not rows:
        raise no_run(run_id)
    asked = rows[0]
    details = [json.loads(row.detail) for row in store.fetch(RunEventRow, "run_id = ?", [run_id])]
    told: dict[str, Any] = next((detail for detail in details if "receipt_sha256" in detail), {})
    adapters = store.fetch(AdapterRow, "run_id = ?", [run_id])
    left_out = store.fetch(ExclusionRow, "mailbox = ?", [asked.mailbox])
    return Recorded(
        receipt_sha256=told.get("receipt_sha256"),
        request=asked.request,
        verdict=told.get("verdict"),
        adapter_sha256=adapters[0].sha256 if adapters else None,
        texts={
            row.window_idx: row.text_sha256
            for row in store.fetch(ShardRow, "mailbox = ?", [asked.mailbox])
            if row.text_sha256
        },
        excluded=Exclusions.of((row.thread_id, row.chunk_id, row.reason) for row in left_out),
        erased=erased_folders(store),
    )


def erased_folders(store: Store) -> frozenset[str]:
    """Folders, relative to the home, that `forget` has removed."""
    adapters = store.query("SELECT adapter_id FROM journal_rows WHERE event = 'erased' AND adapter_id <> ''")
    done = "erasure_id IN (SELECT erasure_id FROM erasure_ends)"
    bases = [
        f"bases/{row.mailbox}/{base_id}"
        for row in store.fetch(ErasureRow, done)
        for base_id in json.loads(row.plan)["bases"]
    ]
    return frozenset([*(f"adapters/{adapter_id}" for (adapter_id,) in adapters), *bases])


def read_bases_anew(home: Home, requests: Iterable[RunRequest], on_read: OnRead) -> None:
    """Reads every base from elsewhere that these runs stand on, once each, whatever is remembered of it: for ``verify``."""
    bases = {
        (request.base.path, request.settings.model.revision) for request in requests if request.base.kind == "external"
    }
    for folder in filter(None, (folder_here(path, revision) for path, revision in sorted(bases, key=str))):
        with contextlib.suppress(RunError):  # said of each run that stands on it
            content_of(home, folder, on_read, afresh=True)


def verify(home: Home, run_id: str, kept: Recorded | None = None) -> list[str]:
    """Problems, one sentence each that begins with the file it is about; none when every byte is as it was.

    The receipts of the lineage are checked up to the base, their files only when asked for by their own ``run_id``.
    """
    kept = kept or Recorded()
    path = home.run(run_id) / RECEIPT
    if not path.is_file():
        return [f"{path} is missing"]
    data = path.read_bytes()
    problems = []
    if kept.receipt_sha256 is not None and hashlib.sha256(data).hexdigest() != kept.receipt_sha256:
        problems.append(f"{path} is not the one that the store recorded")
    receipt = _read(path, data, problems)
    if receipt is None:
        return problems
    if receipt.run_id != run_id:
        return [*problems, f"{path} is the receipt of another run, {receipt.run_id}"]
    problems += _signer_problems(home, path, receipt)
    problems += _record_problems(home, receipt, kept)
    problems += _file_problems(home.run(run_id), receipt.files)
    problems += _base_problems(home, receipt)
    for folder in [receipt.adapter] if receipt.base is None else [receipt.adapter, receipt.base]:
        problems += _folder_problems(home, folder, kept.erased)
    claimed = _claimed_exclusions(home, receipt)
    for shard in receipt.shards:
        problems += _shard_problems(home, shard, kept, claimed)
    problems += _chain_problems(home, receipt)
    return list(dict.fromkeys(problems))


def verify_imported(home: Home, adapter: AdapterRow, erased: frozenset[str] = frozenset()) -> list[str]:
    """As :func:`verify`, of an adapter that another home made: of its run only the receipt is here, so that receipt and
    adapter are held against each other and against what the store recorded."""
    path = home.run(adapter.run_id) / RECEIPT
    if not path.is_file():
        return [f"{path} is missing"]
    problems: list[str] = []
    receipt = _read(path, path.read_bytes(), problems)
    if receipt is None:
        return problems
    if (receipt.run_id, receipt.adapter.sha256) != (adapter.run_id, adapter.sha256):
        return [f"{path} is not the receipt of {adapter.adapter_id} as the store recorded it"]
    return list(_folder_problems(home, receipt.adapter, erased))


def _read(path: Path, data: bytes, problems: list[str]) -> Receipt | None:
    """The receipt, or None with the problem told."""
    try:
        return Receipt.from_bytes(data)
    except ValueError as error:
        why = str(error) if str(error).startswith("of version") else "changed after it was written"
        problems.append(f"{path} {'is' if why.startswith('of') else 'was'} {why}")
        return None


def _signer_problems(home: Home, path: Path, receipt: Receipt) -> Iterator[str]:
    if not home.signing_key.exists():
        yield f"{home.signing_key} is missing, so nobody can tell whether {path} was signed here"
        return
    try:
        key = SigningKey.read(home.signing_key)
    except RegistryError as error:
        yield error.message
        return
    if receipt.signed_by != key.public:
        yield f"{path} was signed by {receipt.signed_by[:16]}, and {home.signing_key} is the key {key.public[:16]}"


def _record_problems(home: Home, receipt: Receipt, kept: Recorded) -> Iterator[str]:
    """Where store and files tell different stories."""
    folder = home.run(receipt.run_id)
    if kept.request is not None and _parsed(folder / REQUEST) not in (None, json.loads(kept.request)):
        yield f"{folder / 'request.json'} is not the request that the store recorded"
    if kept.verdict is not None and receipt.verdict != kept.verdict:
        yield f"{folder / RECEIPT} holds another verdict than the store"
    if kept.adapter_sha256 is not None and receipt.adapter.sha256 != kept.adapter_sha256:
        yield f"{folder / RECEIPT} holds another digest of {receipt.adapter.path} than the store"


def _parsed(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None  # told with the run's other files


def _file_problems(folder: Path, files: Mapping[str, str]) -> Iterator[str]:
    for name, sha256 in files.items():
        if (problem := _changed(folder / name, sha256)) is not None:
            yield problem


def _base_problems(home: Home, receipt: Receipt) -> Iterator[str]:
    """Of a base from elsewhere, which the receipt names by its content."""
    try:
        request = read_request(home.run(receipt.run_id))
    except RunError:
        return  # told with the run's other files
    base, revision = request.base, request.settings.model.revision
    if base.kind == "builtin" or receipt.base_id == by_name(base.path, revision):
        return
    folder = folder_here(base.path, revision)
    if folder is None:
        yield f"{base.path} is missing: the base model {receipt.base_id} that the run was trained on"
        return
    try:
        require_content(home, folder, receipt.base_id)
    except RunError as error:
        yield error.message


def _folder_problems(home: Home, folder: Folder, erased: frozenset[str]) -> Iterator[str]:
    """What was changed, is missing or was added; links count as what they lead to."""
    root = home.root / folder.path
    if folder.path in erased:
        if root.exists():
            yield f"{root} is there, and was erased"
        return
    if not root.is_dir():
        yield f"{root} is missing"
        return
    yield from _file_problems(root, folder.files)
    for file in sorted(root.rglob("*")):
        if file.is_file() and file.relative_to(root).as_posix() not in folder.files:
            yield f"{file} was added: the receipt does not know it"


def _changed(path: Path, sha256: str) -> str | None:
    if not path.is_file():
        return f"{path} is missing"
    return None if sha256_file(path) == sha256 else f"{path} was changed: its sha256 is not the one in the receipt"


def _claimed_exclusions(home: Home, receipt: Receipt) -> Exclusions:
    """What the run left out; nothing where the file is not what it was, which is told with the run's other files."""
    path = home.run(receipt.run_id) / "exclusions.parquet"
    try:
        return read_exclusions(path, receipt.files[path.name])
    except MailtideError:
        return Exclusions()


def _shard_problems(home: Home, shard: ShardRef, kept: Recorded, claimed: Exclusions) -> Iterator[str]:
    folder = home.root / shard.path
    try:
        meta = read_meta(folder, shard.sha256, columns=("chunk_id", "thread_id")).to_pylist()
        gone = {
            row["chunk_id"]
            for row in meta
            if any(excluded.hold(row["thread_id"], row["chunk_id"]) for excluded in (claimed, kept.excluded))
        }
        found = verify_shard(folder, shard.sha256, excluded=gone)
    except MailtideError as error:
        yield error.message
        return
    expected = kept.texts.get(shard.window_idx)
    if expected is not None and found.text_sha256 != expected and _is_whole(folder, shard.sha256):
        yield f"{folder / TEXT} was changed: its sha256 is not the one in the store"


def _is_whole(folder: Path, sha256: str) -> bool:
    """Whether no text is missing; else the file was written again to erase one, and has another digest rightly."""
    try:
        verify_shard(folder, sha256)
    except MailtideError:
        return False
    return True


def _chain_problems(home: Home, receipt: Receipt) -> list[str]:
    """Follows the receipts upwards: each must be, byte for byte, the one that its child saw."""
    parent = receipt.parent
    while parent is not None:
        path = home.run(parent.run_id) / RECEIPT
        if (problem := _changed(path, parent.receipt_sha256)) is not None:
            return [problem]
        problems: list[str] = []
        above = _read(path, path.read_bytes(), problems)
        if above is None:
            return problems
        parent = above.parent
    return []
