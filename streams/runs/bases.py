"""Which base a mailbox's runs stand on, and what names it: the same base is the same id wherever it is asked for."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from pipeline.capacity.bases import folder_here
from pipeline.capacity.content import OnRead, by_name, content_of, told_change
from pipeline.config.settings import ModelSettings, Settings
from pipeline.errors import NothingToDo, RunError
from pipeline.home import Home
from pipeline.runs.requests import AdapterRef, BaseRef, RunRequest
from pipeline.runs.runfiles import ERASED
from pipeline.store import Store
from pipeline.store.rows import AdapterRow, RequestRow, ShardRow
from registry.decide import journal
from registry.deploy.targets import base_of as base_of_adapter
from retrain.models.fetching import here_or_fetched


def base_to_ask(
    store: Store, home: Home, settings: Settings, mailbox: str, adapter: AdapterRef | None, otherwise: str = ""
) -> BaseRef:
    """The base, for who wants something of a model at once: the one that ``adapter`` was trained on, else that of the
    settings. Raises ``NothingToDo`` before there is one; ``otherwise`` is what else may be done then."""
    if adapter is not None:
        return base_of_adapter(home, adapter.adapter_id)
    shards = store.fetch(ShardRow, "mailbox = ?", [mailbox], "window_idx")
    if not shards:
        raise NothingToDo(
            f"no window of {mailbox} has closed, so there is no model yet", hint=otherwise or "see `mailtide status`"
        )
    base = base_of(store, home, settings, mailbox, shards[0])
    if base.kind == "builtin" and not (home.root / base.path).is_dir():
        made = "make it with `mailtide retrain --confirm`"
        raise NothingToDo(
            "the built-in base is made by the first run", hint=f"{made}, or {otherwise}" if otherwise else made
        )
    return base


def base_of(store: Store, home: Home, settings: Settings, mailbox: str, first: ShardRow) -> BaseRef:
    """The base that a mailbox's runs stand on. The built-in one is made once, by the first run that asks for it, and once
    more, under another name, after mail that it read was erased."""
    model = settings.model
    if model.base != "builtin":
        return BaseRef(kind="external", base_id=_external_id(store, home, model, mailbox), path=model.base)
    recipe = {"mailbox": mailbox, "seed": settings.seed, "shard": first.shard_sha256, "model": model.builtin.model_dump()}
    if without := _erased_from(store, first):
        recipe["without"] = without
    base_id = "b" + hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]
    return BaseRef(kind="builtin", base_id=base_id, path=f"bases/{mailbox}/{base_id}")


def _external_id(store: Store, home: Home, model: ModelSettings, mailbox: str) -> str:
    """What names a base from elsewhere: its content. Where it is not on this disk, as another machine trains, it is what
    the newest run called it, or its Hub id and revision; a lineage that was begun under these keeps them, as the trainer
    holds its runs against each other's content."""
    called, folder = by_name(model.base, model.revision), folder_here(model.base, model.revision)
    rows = store.fetch(RequestRow, "mailbox = ?", [mailbox], '"at" DESC LIMIT 1')
    newest = RunRequest.model_validate_json(rows[0].request) if rows else None
    before = None
    if newest and (newest.base.path, newest.settings.model.revision) == (model.base, model.revision):
        before = newest.base.base_id
    if folder is None or before == called:
        return before or called
    return content_of(home, folder).base_id


def _erased_from(store: Store, shard: ShardRow) -> list[str]:
    """The train chunks of a shard whose text was erased: a base without them is another one."""
    rows = store.query(
        "SELECT DISTINCT c.chunk_id FROM chunk_rows c JOIN exclusion_rows x USING (mailbox, chunk_id) "
        "WHERE c.mailbox = ? AND c.window_idx = ? AND c.split = 'train' AND starts_with(x.reason, ?) ORDER BY 1",
        [shard.mailbox, shard.window_idx, ERASED],
    )
    return [chunk_id for (chunk_id,) in rows]


def read_base(home: Home, settings: Settings, on_read: OnRead) -> None:
    """Reads a base from elsewhere that was not read before, telling how far that is: a large one takes a while, in which
    nobody should have to wait for the store. Whether it is of use is for others to say."""
    model = settings.model
    folder = None if model.base == "builtin" else folder_here(model.base, model.revision)
    if folder is not None:
        content_of(home, folder, on_read)


def ready_base(home: Home, settings: Settings, on_read: OnRead) -> None:
    """As :func:`read_base`, before a run is asked for: what the settings allow to be fetched is fetched first, as a base is
    named by its content. Raises ``RunError`` when that fails."""
    model = settings.model
    if model.base != "builtin" and model.allow_download and settings.bus.kind == "embedded":
        here_or_fetched(model.base, model)
    read_base(home, settings, on_read)


@dataclass(frozen=True, slots=True)
class Stands:
    """A champion, and the base that it was trained on."""

    adapter_id: str
    base: BaseRef


def champion_elsewhere(store: Store, home: Home, request: RunRequest) -> Stands | None:
    """The mailbox's champion where it stands on another base than the request's: the run then begins a new lineage."""
    champion = journal(store).champion(request.mailbox)
    if champion is None or store.fetch(AdapterRow, "adapter_id = ?", [champion])[0].base_id == request.base.base_id:
        return None
    return Stands(champion, base_of_adapter(home, champion))


def require_kept_base(store: Store, home: Home, request: RunRequest) -> None:
    """Raises ``RunError`` when the base that the champion was trained on has other content now, in the same place: that may
    be a mistake, and nobody has asked for a new lineage."""
    stands = champion_elsewhere(store, home, request)
    if stands is None or stands.base.path != request.base.path or request.settings.model.init_from == "fresh":
        return
    folder = folder_here(request.base.path, request.settings.model.revision)
    if folder is None or request.base.kind == "builtin":
        return
    raise RunError(
        f"the base model in {folder}, which champion {stands.adapter_id} was trained on, "
        f"{told_change(home, stands.base.base_id, content_of(home, folder))}",
        hint="put its files back as they were; to begin a new lineage on it, set model.init_from to fresh",
    )
