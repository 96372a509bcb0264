"""Which base a mailbox's runs stand on, and what names it: the same base is the same id wherever it is asked for."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from pipeline.config.settings import Settings
from pipeline.errors import NothingToDo, RunError
from pipeline.home import Home
from pipeline.runs.requests import BaseRef
from pipeline.runs.runfiles import ERASED
from pipeline.store import Store
from pipeline.store.rows import ShardRow


def base_to_ask(store: Store, home: Home, settings: Settings, mailbox: str, otherwise: str = "") -> BaseRef:
    """The base, for who wants something of a model at once. Raises ``NothingToDo`` before there is one; ``otherwise`` is
    what else may be done then."""
    shards = store.fetch(ShardRow, "mailbox = ?", [mailbox], "window_idx")
    if not shards:
        raise NothingToDo(
            f"no window of {mailbox} has closed, so there is no model yet", hint=otherwise or "see `mailtide status`"
        )
    base = base_of(store, settings, mailbox, shards[0])
    if base.kind == "builtin" and not (home.root / base.path).is_dir():
        made = "make it with `mailtide retrain --confirm`"
        raise NothingToDo(
            "the built-in base is made by the first run", hint=f"{made}, or {otherwise}" if otherwise else made
        )
    return base


def base_of(store: Store, settings: Settings, mailbox: str, first: ShardRow) -> BaseRef:
    """The base that a mailbox's runs stand on. The built-in one is made once, by the first run that asks for it, and once
    more, under another name, after mail that it read was erased."""
    model = settings.model
    if model.base != "builtin":
        return BaseRef(kind="external", base_id=_external_id(model.base, model.revision), path=model.base)
    recipe = {"mailbox": mailbox, "seed": settings.seed, "shard": first.shard_sha256, "model": model.builtin.model_dump()}
    if without := _erased_from(store, first):
        recipe["without"] = without
    base_id = "b" + hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]
    return BaseRef(kind="builtin", base_id=base_id, path=f"bases/{mailbox}/{base_id}")


def _erased_from(store: Store, shard: ShardRow) -> list[str]:
    """The train chunks of a shard whose text was erased: a base without them is another one."""
    rows = store.query(
        "SELECT DISTINCT c.chunk_id FROM chunk_rows c JOIN exclusion_rows x USING (mailbox, chunk_id) "
        "WHERE c.mailbox = ? AND c.window_idx = ? AND c.split = 'train' AND starts_with(x.reason, ?) ORDER BY 1",
        [shard.mailbox, shard.window_idx, ERASED],
    )
    return [chunk_id for (chunk_id,) in rows]


def _external_id(name: str, revision: str | None) -> str:
    """Names an external base: by what its folder holds when it is one, else by its Hub id and revision."""
    folder = Path(name).expanduser()
    slug = re.sub(r"[^a-z0-9]+", "-", folder.name.lower()).strip("-")
    if not folder.is_dir():
        named = f"{name}@{revision or 'main'}"
        return f"{slug}-{hashlib.sha256(named.encode()).hexdigest()[:8]}"
    config = folder / "config.json"
    if not config.is_file():
        raise RunError(f"{folder} holds no config.json", hint="set model.base to a model's folder or a Hub id")
    listing = "".join(f"{file.name} {file.stat().st_size}\n" for file in sorted(folder.glob("*.safetensors")))
    return f"{slug}-{hashlib.sha256(config.read_bytes() + listing.encode()).hexdigest()[:8]}"
