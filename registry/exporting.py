"""An adapter as a plain folder for use elsewhere: its files, its receipt, and sums that anyone can check."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath

from pipeline.errors import RegistryError, UsageError
from pipeline.home import Home, fsync_dir, private_dir, sha256_file
from registry.receipt import RECEIPT, Receipt
from registry.verify import Recorded, verify

SUMS = "SHA256SUMS"
HARMLESS = frozenset({".safetensors", ".json", ".md", ".txt"})
"""What an adapter's folder may hold: nothing that is executed by being loaded."""


def export_adapter(home: Home, run_id: str, folder: Path, kept: Recorded) -> tuple[str, ...]:
    """Copies what a run's receipt says of its adapter into ``folder``, which must not exist; returns the names there.

    All is checked first (:func:`registry.verify.verify`), and the copies after. The folder appears whole or not at all.
    Raises ``UsageError`` when it exists, ``RegistryError`` when a file is not as recorded or could run code.
    """
    if folder.exists():
        raise UsageError(f"{folder} exists already", hint="name a folder that is not there yet")
    if problems := verify(home, run_id, kept):
        raise RegistryError(f"nothing is exported: {problems[0]}", hint=f"see `mailtide registry verify {run_id}`")
    receipt = Receipt.from_bytes((home.run(run_id) / RECEIPT).read_bytes())
    if unsafe := [name for name in receipt.adapter.files if PurePosixPath(name).suffix not in HARMLESS]:
        raise RegistryError(f"{unsafe[0]} in {receipt.adapter.path} is no safetensors", hint="export another adapter")
    made = private_dir(folder.parent) / f".{folder.name}.tmp"
    shutil.rmtree(made, ignore_errors=True)
    try:
        for name in receipt.adapter.files:
            _copy(home.root / receipt.adapter.path / name, made / name)
        _copy(home.run(run_id) / RECEIPT, made / RECEIPT)
        sums = {**receipt.adapter.files, RECEIPT: sha256_file(made / RECEIPT)}
        if torn := [name for name, sha256 in sums.items() if sha256_file(made / name) != sha256]:
            raise RegistryError(f"the copy of {torn[0]} is not what was copied", hint="look at the disk, then try again")
        (made / SUMS).write_text("".join(f"{sha256}  {name}\n" for name, sha256 in sorted(sums.items())))
        (made / SUMS).chmod(0o600)
        made.rename(folder)
        fsync_dir(folder.parent)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return (*sorted(sums), SUMS)


def _copy(source: Path, target: Path) -> None:
    private_dir(target.parent)
    shutil.copyfile(source, target)
    target.chmod(0o600)
