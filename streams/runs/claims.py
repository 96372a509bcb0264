"""The owner's claim: which windows the next run trains on, continuing which adapter, fixed in one request.

A mailbox has at most one undecided request; what closes while it runs waits for the next. The folder of a run is written
before its request, so that a crash between the two leaves a folder that the next claim writes again, the same.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pipeline.config.settings import Settings
from pipeline.errors import NothingToDo, UsageError
from pipeline.events import Event, RunRequested
from pipeline.home import Home, private_dir, sha256_file, write_atomic
from pipeline.ranges import ranges
from pipeline.runs.requests import REQUEST, AdapterRef, BaseRef, RunRequest, RunSettings, ShardRef
from pipeline.runs.runfiles import Loss, write_exclusions, write_losses
from pipeline.sampling.coverage import read_coverage, windows_trained
from pipeline.sampling.manifest import waiting_windows
from pipeline.sampling.objectives import VERSIONS_APART, owner_of
from pipeline.store import Store
from pipeline.store.rows import (
    AdapterRow,
    ExclusionRow,
    JournalRow,
    LossRow,
    RequestRow,
    RunEventRow,
    ShardRow,
)
from registry.decide import DECIDED, Decision, decision_of
from registry.importing import Terms
from registry.journal import Happening, Status, fold
from registry.named import reference
from streams.runs.bases import base_of


@dataclass(frozen=True, slots=True)
class Windows:
    """Which waiting windows a claim may take: all, those of a range, or with ``each`` one closing more than before, which
    lies beyond ``past``. With ``unasked``, none of them unless a run was never asked about one."""

    first: int | None = None
    last: int | None = None
    each: bool = False
    unasked: bool = False
    past: int = -1


ALL_WAITING = Windows()
NEWLY_CLOSED = Windows(unasked=True)
"""What a machine may ask for by itself: a closing starts at most one run, whatever else has changed since."""


class NothingToLearn(NothingToDo):
    """Windows wait, up to ``newest``, and hold nothing that a run could be trained on; they join the next that does."""

    def __init__(self, why: str, *, hint: str, newest: int) -> None:
        super().__init__(why, hint=hint)
        self.newest = newest


def undecided(store: Store, mailbox: str) -> RunRequest | None:
    """The request of a mailbox that has no verdict yet."""
    marks = ", ".join("?" for _ in DECIDED)
    # By its id first: a request names every shard, and to read them all takes longer with each.
    run_id = store.scalar(
        "SELECT run_id FROM requests WHERE mailbox = ? "
        f"AND run_id NOT IN (SELECT run_id FROM run_events WHERE status IN ({marks}))",
        [mailbox, *DECIDED],
    )
    rows = store.fetch(RequestRow, "run_id = ?", [run_id]) if run_id is not None else []
    return RunRequest.model_validate_json(rows[0].request) if rows else None


def require_no_other(store: Store, mailbox: str, windows: Windows) -> None:
    """Raises ``UsageError`` when certain windows are asked for while a run on others is undecided, which goes first as it
    is. One on windows of the range is what was asked for, and goes on."""
    pending = undecided(store, mailbox)
    if pending is None or (windows.first is None and windows.last is None):
        return
    first, last = windows.first or 0, pending.new_windows[-1] if windows.last is None else windows.last
    if not all(first <= idx <= last for idx in pending.new_windows):
        raise UsageError(
            f"run {pending.run_id} of {mailbox} has no verdict yet and goes first, as it was claimed",
            hint="leave out --windows",
        )


def claimed_otherwise(store: Store, settings: Settings, mailbox: str) -> str:
    """The undecided run that goes on with other settings than ``settings`` ask for; "" where there is none."""
    pending = undecided(store, mailbox)
    if pending is None:
        return ""
    names = ("replay", "model", "train", "eval")
    alike = all(getattr(pending.settings, name) == getattr(settings, name) for name in names)
    return "" if alike else pending.run_id


def claim(store: Store, home: Home, settings: Settings, mailbox: str, windows: Windows, now: datetime) -> RunRequest:
    """The request to carry out now: the undecided one, else a new one over what waits.

    Raises ``NothingToDo`` when nothing waits, or when the same was asked and decided before.
    """
    request = undecided(store, mailbox)
    if request is None:
        request = draft(store, home, settings, mailbox, windows)
        _write_folder(store, home, request)
        payload = RunRequested(mailbox=mailbox, run_id=request.run_id, windows=request.new_windows)
        parent = request.parent.adapter_id if request.parent else None
        store.append(
            [
                RequestRow(
                    request.run_id,
                    mailbox,
                    request.new_windows,
                    parent,
                    request.adapter_id,
                    request.model_dump_json(),
                    now,
                ),
                RunEventRow(request.run_id, "requested", "{}", now),
                *store.outbox_rows([Event.of(payload, at=now)]),
            ]
        )
    return request


def draft(store: Store, home: Home, settings: Settings, mailbox: str, windows: Windows) -> RunRequest:
    """The request that a claim would write now, without writing it.

    Raises ``NothingToDo`` when nothing waits, or when the same was asked and came to a verdict. A run that failed is none:
    whoever asks for it again, its cause being mended, gets another one on the same evidence.
    """
    request = _first_draft(store, home, settings, mailbox, windows)
    while (decided := decision_of(store, request)) is not None:
        if decided.status != Happening.FAILED:
            raise NothingToDo(
                f"run {request.run_id} was {decided.status} on just this evidence",
                hint="wait for the next window, or change a setting of the run",
            )
        request = request.model_copy(update={"failed_before": request.failed_before + 1})
    return request


def last_failure(store: Store, request: RunRequest) -> Decision | None:
    """The decision on the run that failed on just this evidence before; None where none did."""
    if not request.failed_before:
        return None
    return decision_of(store, request.model_copy(update={"failed_before": request.failed_before - 1}))


def _first_draft(store: Store, home: Home, settings: Settings, mailbox: str, windows: Windows) -> RunRequest:
    """The request of the first run on what waits."""
    shards = store.fetch(ShardRow, "mailbox = ?", [mailbox], "window_idx")
    if not shards:
        raise NothingToDo(f"no window of {mailbox} has closed yet", hint=f"import more mail, or `mailtide close {mailbox}`")
    if windows.each:
        shards = _one_more(store, mailbox, shards, windows.past)
    state = fold(store.fetch(JournalRow, "mailbox = ?", [mailbox]))
    base = base_of(store, home, settings, mailbox, shards[0])
    adapters = {row.adapter_id: row for row in store.fetch(AdapterRow, "mailbox = ?", [mailbox])}
    champion = _reference(home, adapters, state.champion(mailbox), base)
    parent = champion if settings.model.init_from == "champion" else None
    learned = _learned(home, champion)
    chosen = _chosen(store, mailbox, settings, windows, [row.window_idx for row in shards], learned if parent else ())
    untainted = [
        adapter_id
        for adapter_id, adapter in state.adapters.items()
        if adapter.was_champion and adapter.status is not Status.TAINTED and adapters[adapter_id].base_id == base.base_id
    ]
    best = _best(store, champion, untainted, settings.model.objective)
    return RunRequest(
        mailbox=mailbox,
        new_windows=chosen,
        old_windows=tuple(sorted(learned)),
        shards=tuple(ShardRef(window_idx=row.window_idx, path=row.shard_path, sha256=row.shard_sha256) for row in shards),
        base=base,
        parent=parent,
        champion=champion,
        best=_reference(home, adapters, best, base),
        coverage_sha256=sha256_file(home.run(parent.run_id) / "coverage.parquet") if parent else "",
        exclusions_sha256=_exclusions_sha256(store, mailbox),
        settings=RunSettings(
            seed=settings.seed,
            rolling=settings.window.rolling,
            min_threads=settings.gate.min_threads,
            replay=settings.replay,
            model=settings.model,
            train=settings.train,
            eval=settings.eval,
        ),
        owner=owner_of(home, settings, mailbox),
    )


def _chosen(
    store: Store, mailbox: str, settings: Settings, windows: Windows, closed: Sequence[int], learned: Collection[int]
) -> tuple[int, ...]:
    """The waiting windows that a claim takes. Raises ``NothingToDo`` for none, or none that a machine may take."""
    waiting = waiting_windows(closed, learned, len(closed))
    asked_for = [
        idx
        for idx in waiting
        if (windows.first is None or idx >= windows.first) and (windows.last is None or idx <= windows.last)
    ]
    chosen = tuple(asked_for[-settings.replay.max_new_windows :])
    if not chosen and waiting:
        raise NothingToDo(
            f"{mailbox}: none of the windows asked for waits, only {ranges(waiting)}", hint="see `mailtide windows`"
        )
    if not chosen:
        raise NothingToDo(
            f"{mailbox}: the champion has learned every closed window, up to {max(closed)}",
            hint=f"import more mail, or `mailtide close {mailbox}`",
        )
    if windows.unasked and not set(chosen) - _asked(store, mailbox):
        raise NothingToDo(
            f"{mailbox}: a run was asked for on every closed window that waits",
            hint="wait for the next window, or ask with `mailtide retrain --confirm`",
        )
    return chosen


def import_terms(store: Store, home: Home, settings: Settings, mailbox: str) -> Terms:
    """What an adapter from elsewhere must fit here; raises ``NothingToDo`` before the first window has closed."""
    shards = store.fetch(ShardRow, "mailbox = ?", [mailbox], "window_idx")
    if not shards:
        raise NothingToDo(f"no window of {mailbox} has closed yet", hint="bring mail in with `mailtide import PATH`")
    return Terms(mailbox, base_of(store, home, settings, mailbox, shards[0]), settings.train.lora_r)


def _one_more(store: Store, mailbox: str, shards: Sequence[ShardRow], past: int) -> list[ShardRow]:
    """The closed windows up to the first after ``past`` that no run was asked about."""
    asked = store.query("SELECT coalesce(max(list_max(windows)), -1) FROM requests WHERE mailbox = ?", [mailbox])[0][0]
    asked = max(asked, past)
    unasked = [row.window_idx for row in shards if row.window_idx > asked]
    if not unasked:
        raise NothingToDo(
            f"{mailbox}: every closed window up to {asked} was asked about",
            hint="leave out --each to take all that waits at once",
        )
    return [row for row in shards if row.window_idx <= unasked[0]]


def _asked(store: Store, mailbox: str) -> set[int]:
    """The windows that some run was asked about."""
    return {window for (window,) in store.query("SELECT unnest(windows) FROM requests WHERE mailbox = ?", [mailbox])}


def _reference(home: Home, adapters: dict[str, AdapterRow], adapter_id: str | None, base: BaseRef) -> AdapterRef | None:
    """An adapter as a request names it; None also when it stands on another base, which cannot be continued from."""
    if adapter_id is None or adapters[adapter_id].base_id != base.base_id:
        return None
    return reference(home, adapters[adapter_id])


def _learned(home: Home, champion: AdapterRef | None) -> frozenset[int]:
    if champion is None:
        return frozenset()
    return windows_trained(read_coverage(home.run(champion.run_id) / "coverage.parquet"))


def _best(store: Store, champion: AdapterRef | None, untainted: Collection[str], objective: str) -> str | None:
    """The untainted former champion with the lowest loss on the val chunks that it and the champion were both measured on
    under ``objective``; the champion itself when none is lower, and None without a champion."""
    if champion is None:
        return None
    rivals = [adapter_id for adapter_id in untainted if adapter_id != champion.adapter_id]
    if not rivals:
        return champion.adapter_id
    rows = store.query(
        f"""
        WITH served AS (
            SELECT l.* FROM loss_rows l JOIN adapter_rows a USING (adapter_id, mailbox) JOIN run_events e USING (run_id)
            WHERE l.split = 'val' AND e.detail->>'checkpoint' = l.checkpoint
            AND NOT EXISTS (FROM exclusion_rows x WHERE x.mailbox = l.mailbox AND x.chunk_id = l.chunk_id)
        )
        SELECT r.adapter_id, sum(r.nll - c.nll) / sum(c.n_tokens) AS difference
        FROM served r JOIN served c USING (mailbox, chunk_id, eval_version)
        WHERE c.adapter_id = ? AND r.adapter_id IN ({", ".join("?" for _ in rivals)})
          AND (eval_version > {VERSIONS_APART}) = ?
        GROUP BY r.adapter_id HAVING difference < 0 ORDER BY difference, r.adapter_id LIMIT 1
        """,
        [champion.adapter_id, *rivals, objective == "reply"],
    )
    return str(rows[0][0]) if rows else champion.adapter_id


def _exclusions(store: Store, mailbox: str) -> list[tuple[str, str | None, str]]:
    return [(row.thread_id, row.chunk_id, row.reason) for row in store.fetch(ExclusionRow, "mailbox = ?", [mailbox])]


def _exclusions_sha256(store: Store, mailbox: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return write_exclusions(Path(folder) / "exclusions.parquet", _exclusions(store, mailbox))


def _write_folder(store: Store, home: Home, request: RunRequest) -> None:
    folder = private_dir(home.run(request.run_id))
    write_exclusions(folder / "exclusions.parquet", _exclusions(store, request.mailbox))
    named = [adapter.adapter_id for adapter in (request.champion, request.parent, request.best) if adapter]
    named.append(f"base:{request.base.base_id}")
    rows = store.fetch(
        LossRow,
        f"mailbox = ? AND adapter_id IN ({', '.join('?' for _ in named)})",
        [request.mailbox, *named],
        "adapter_id, checkpoint, chunk_id, eval_version",
    )
    write_losses(folder / "known_losses.parquet", [Loss.of(row) for row in rows])
    write_atomic(folder / REQUEST, request.model_dump_json(indent=2).encode() + b"\n")
