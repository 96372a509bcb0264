"""The champion as a whole model in a folder: ``merged/MAILBOX/current`` points at base and adapter in one.

    merged/MAILBOX/ADAPTER_ID/     safetensors, configuration, tokenizer; appears whole or not at all
    merged/MAILBOX/current         a symbolic link, moved in one step

The former model is kept for a week, so that a return to it takes no time.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.capacity.content import require_content
from pipeline.errors import DeployError, RunError
from pipeline.events import AdapterPromoted
from pipeline.home import Home, fsync_dir, private_dir
from pipeline.runs.requests import BaseRef
from registry.deploy.contract import Speed
from registry.deploy.symlink import point

NOTE = "merged.json"
CURRENT = "current"
KEPT_DAYS = 7.0


class Merged:
    """``base_of`` gives the base of an adapter, ``folder_of`` where such a base lies."""

    name = "merged"
    drain_seconds = KEPT_DAYS * 86_400
    mailbox: str | None = None

    def __init__(self, home: Home, base_of: Callable[[str], BaseRef]) -> None:
        self._home = home
        self._base_of = base_of

    def load(self, promotion: AdapterPromoted) -> None:
        """Merges in a process of its own, as whoever deploys need not load torch."""
        folder = self._folder(promotion.mailbox, promotion.adapter_id)
        if _note(folder) == promotion.sha256:
            return
        written = private_dir(folder.parent) / f".{folder.name}.partial"
        for old in (written, folder):
            shutil.rmtree(old, ignore_errors=True)
        base = base_folder(self._home, self._base_of(promotion.adapter_id))
        asked = ["--base", str(base), "--adapter", str(self._home.root / promotion.path), "--out", str(written)]
        try:
            done = subprocess.run(
                [sys.executable, "-m", "retrain.models.merging", *asked], capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                why = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
                raise DeployError(f"{promotion.adapter_id} cannot be merged into its base: {why[-1]}")
            (written / NOTE).write_text(json.dumps({"adapter_sha256": promotion.sha256, "base": str(base.name)}) + "\n")
            (written / NOTE).chmod(0o600)
            written.replace(folder)
            fsync_dir(folder.parent)
        finally:
            shutil.rmtree(written, ignore_errors=True)

    def check(self, promotion: AdapterPromoted) -> None:
        """Its answers were compared before it got its name; here, that it is still the one."""
        folder = self._folder(promotion.mailbox, promotion.adapter_id)
        if _note(folder) != promotion.sha256 or not any(folder.glob("*.safetensors")):
            raise DeployError(f"{folder} is not what was merged", hint="remove it: it is made again")

    def flip(self, promotion: AdapterPromoted) -> None:
        point(self._link(promotion.mailbox), self._folder(promotion.mailbox, promotion.adapter_id))

    def confirm(self, promotion: AdapterPromoted) -> None:
        link = self._link(promotion.mailbox)
        if link.resolve() != self._folder(promotion.mailbox, promotion.adapter_id).resolve():
            raise DeployError(f"{link} does not point at {promotion.adapter_id}", hint="somebody else moves it")
        self.check(promotion)

    def unload(self, mailbox: str, adapter_id: str) -> None:
        shutil.rmtree(self._folder(mailbox, adapter_id), ignore_errors=True)

    def withdraw(self, mailbox: str, adapter_id: str) -> None:
        link = self._link(mailbox)
        if link.is_symlink() and link.readlink().name == adapter_id:
            link.unlink()
        self.unload(mailbox, adapter_id)

    def speed(self, promotion: AdapterPromoted) -> Speed | None:
        return None

    def _folder(self, mailbox: str, adapter_id: str) -> Path:
        return self._home.merged(mailbox) / adapter_id

    def _link(self, mailbox: str) -> Path:
        return self._home.merged(mailbox) / CURRENT


def base_folder(home: Home, base: BaseRef) -> Path:
    """Where a base lies on this disk; raises ``DeployError`` for one that is only a name."""
    if base.kind == "builtin":
        return home.root / base.path
    folder = Path(base.path).expanduser()
    if not (folder / "config.json").is_file():
        raise DeployError(
            f"the base {base.base_id} is not a folder here, so nothing can be merged into it",
            hint="set model.base to the folder that holds it",
        )
    try:
        require_content(home, folder, base.base_id)
    except RunError as error:
        raise DeployError(error.message, hint=error.hint) from error
    return folder


def _note(folder: Path) -> str | None:
    """The digest of the adapter that was merged; None where nothing whole lies."""
    try:
        told = json.loads((folder / NOTE).read_bytes())
    except (OSError, ValueError):
        return None
    return str(told.get("adapter_sha256")) if isinstance(told, dict) else None
