"""Whether what was erased is gone, and the receipts that say so are as they were written."""

from __future__ import annotations

from pipeline.chunking.shards import TEXT
from pipeline.errors import RegistryError
from pipeline.home import Home, sha256_file
from pipeline.store import Store
from pipeline.store.rows import ErasureEndRow
from registry.signing import SigningKey
from streams.erasure.receipt import ErasureReceipt, path_of, read


def verify_erasures(store: Store, home: Home) -> dict[str, list[str]]:
    """Problems by erasure, one sentence each that begins with the file it is about; none where all is as it was left."""
    problems: dict[str, list[str]] = {}
    newest: dict[tuple[str, int], tuple[str, str]] = {}
    for row in store.fetch(ErasureEndRow):
        found = problems.setdefault(row.erasure_id, [])
        path = path_of(home, row.erasure_id)
        try:
            receipt = read(home, row.erasure_id)
        except RegistryError as error:
            found.append(error.message)
            continue
        if sha256_file(path) != row.receipt_sha256:
            found.append(f"{path} is not the one that the store recorded")
        if receipt.signed_by != SigningKey.of(home).public:
            found.append(f"{path} was signed by {receipt.signed_by[:16]}, which is not this home's key")
        found += _there_again(home, receipt)
        for window, sha256 in receipt.texts.items():
            newest[(receipt.plan.mailbox, window)] = (row.erasure_id, sha256)
    for (mailbox, window), (erasure_id, sha256) in newest.items():
        text = home.shard(mailbox, window) / TEXT
        if not text.is_file() or sha256_file(text) != sha256:
            problems[erasure_id].append(f"{text} was changed: its sha256 is not the one in the receipt of its last erasure")
    return problems


def _there_again(home: Home, receipt: ErasureReceipt) -> list[str]:
    plan = receipt.plan
    folders = [home.adapter(one) for one in plan.adapters] + [home.base(plan.mailbox, one) for one in plan.bases]
    return [f"{folder} is there, and was erased" for folder in folders if folder.exists()]
