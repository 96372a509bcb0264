"""Which two adapters a spot check compares, and on what: from the store as it stands; and the sheet with their replies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.config.settings import Settings
from pipeline.errors import NothingToDo, UsageError
from pipeline.home import Home
from pipeline.runs.requests import BaseRef, RunRequest, ShardRef
from pipeline.runs.runfiles import Exclusions
from pipeline.runs.spotsheet import Check, Sheet, Side, read_sheet, sheet_path, write_sheet, written_before
from pipeline.store import Store
from pipeline.store.rows import AdapterRow, ExclusionRow, RequestRow, ShardRow
from registry.decide import journal
from registry.journal import RegistryState, Status
from registry.named import adapter_of, reference
from streams.runs.bases import base_of
from streams.runs.runner import require_training

BASE = "base"
"""How the bare base is named on the command line."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody asks for: two adapters, where they are named, and ``n`` replies of at most so many ``tokens``."""

    adapter: str | None
    against: str | None
    n: int
    seed: int | None
    tokens: int


def check_of(store: Store, home: Home, settings: Settings, mailbox: str, wish: Wish) -> Check:
    """The check that is asked for. By default it is the newest candidate's, where there is none the champion's, against the
    champion, where that is itself against what its run challenged.

    Raises ``NothingToDo`` before the first adapter, ``UsageError`` for what is not there or stands on another base.
    """
    rows = {row.adapter_id: row for row in store.fetch(AdapterRow, "mailbox = ?", [mailbox])}
    shards = store.fetch(ShardRow, "mailbox = ?", [mailbox], "window_idx")
    state = journal(store)
    own = adapter_of(store, mailbox, wish.adapter or _newest(state, mailbox))
    base = _base(store, home, settings, own, shards)
    other = wish.against or _opponent(store, state, rows, own)
    if other != BASE:
        beside = adapter_of(store, mailbox, other)
        if beside.base_id != own.base_id:
            raise UsageError(
                f"{other} stands on base {beside.base_id} and {own.adapter_id} on {own.base_id}",
                hint="name two adapters on one base, see `mailtide registry lineage`",
            )
        if beside == own:
            raise UsageError(f"{other} cannot be compared with itself", hint="name another with --against, or base")
    excluded = store.fetch(ExclusionRow, "mailbox = ?", [mailbox])
    return Check(
        mailbox=mailbox,
        sides=(_side(home, own), Side(f"base:{base.base_id}", None) if other == BASE else _side(home, rows[other])),
        base=base,
        model=settings.model,
        shards=tuple(ShardRef(window_idx=row.window_idx, path=row.shard_path, sha256=row.shard_sha256) for row in shards),
        exclusions=Exclusions.of((row.thread_id, row.chunk_id, row.reason) for row in excluded),
        min_threads=settings.gate.min_threads,
        n=wish.n,
        seed=settings.seed if wish.seed is None else wish.seed,
        tokens=wish.tokens,
    )


def sheet_of(home: Home, check: Check, report: Callable[[int, int, str], None]) -> Sheet:
    """The sheet of a check: what lies there from an earlier sitting, else made by the model, once.

    Loads a model only where a reply is lacking; the store should be closed, as that may take a while. ``report`` is told
    how many of how many replies are written.
    """
    folder = home.spot_checks(check.mailbox)
    path = sheet_path(folder, check.sides)
    sheet = read_sheet(path)
    if sheet is None or sheet.digest != check.digest:
        require_training()
        from retrain.evaluation.spot_replies import make_sheet

        known = written_before(folder, {side.name for side in check.sides}, check.tokens)
        sheet = make_sheet(home, check, known, report)
        write_sheet(path, sheet)
    return sheet


def _newest(state: RegistryState, mailbox: str) -> str:
    own = [one for one in state.adapters.values() if one.mailbox == mailbox and one.status is Status.CANDIDATE]
    if own:
        return max(own, key=lambda one: one.registered_at).adapter_id
    champion = state.champion(mailbox)
    if champion is None:
        raise NothingToDo(
            f"{mailbox} has neither a candidate nor a champion",
            hint="train one with `mailtide retrain --confirm`, or name an adapter with --adapter",
        )
    return champion


def _opponent(store: Store, state: RegistryState, rows: dict[str, AdapterRow], own: AdapterRow) -> str:
    """The champion, or whom its run challenged where it is the champion itself; the bare base where there is none."""
    champion = state.champion(own.mailbox)
    if champion == own.adapter_id:
        request = _request(store, own)
        champion = request.champion.adapter_id if request is not None and request.champion is not None else None
    comparable = champion is not None and champion in rows and rows[champion].base_id == own.base_id
    return champion if champion is not None and comparable else BASE


def _base(store: Store, home: Home, settings: Settings, own: AdapterRow, shards: Sequence[ShardRow]) -> BaseRef:
    """The base that the adapter stands on; that of the settings for one from elsewhere."""
    request = _request(store, own)
    if request is not None:
        return request.base
    base = base_of(store, home, settings, own.mailbox, shards[0])
    if base.base_id != own.base_id:
        raise UsageError(
            f"{own.adapter_id} stands on base {own.base_id}, and the settings name {base.base_id}", hint="set model.base"
        )
    return base


def _request(store: Store, own: AdapterRow) -> RunRequest | None:
    rows = store.fetch(RequestRow, "run_id = ?", [own.run_id])
    return RunRequest.model_validate_json(rows[0].request) if rows else None


def _side(home: Home, row: AdapterRow) -> Side:
    return Side(row.adapter_id, reference(home, row))
