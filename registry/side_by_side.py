"""Two runs compared: paired differences of their stored losses, and their reported figures beside each other.

Only what is paired can be compared: both adapters on the same held-out chunks, under the same evaluation version, summed by
thread. Figures that each run reported are of its own sample, and stand here to be read, not subtracted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.domain import Split
from pipeline.errors import NothingToDo, UsageError
from pipeline.intervals import Interval, ratio_interval
from pipeline.store import Store
from pipeline.store.rows import LossRow, RequestRow, RunEventRow
from registry.named import no_run

NATS_PER_TOKEN, BITS_PER_BYTE = "nats_per_token", "bits_per_byte"


@dataclass(frozen=True, slots=True)
class Side:
    """A decided run, by the checkpoint that became its adapter; ``windows`` are those that it trained as new."""

    run_id: str
    mailbox: str
    adapter_id: str
    checkpoint: str
    status: str
    windows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Paired:
    """Losses of two runs on the same chunks of a split: of all windows, or of those that one of the runs learned as new
    (``windows`` says which). ``difference`` is the second less the first: below 0 the second run is better."""

    split: str
    windows: str
    unit: str
    chunks: int
    first: Interval
    second: Interval
    difference: Interval


@dataclass(frozen=True, slots=True)
class Reported:
    """A figure as the runs reported it, each with its 95 % bounds; None where a run has none."""

    split: str
    metric: str
    first: tuple[float, float | None, float | None] | None
    second: tuple[float, float | None, float | None] | None


@dataclass(frozen=True, slots=True)
class SideBySide:
    """``unpaired`` counts held-out chunks that only one of the runs has a loss for."""

    first: Side
    second: Side
    paired: tuple[Paired, ...]
    unpaired: int
    reported: tuple[Reported, ...]


@dataclass(frozen=True, slots=True)
class _Pair:
    """One chunk under both."""

    split: str
    thread_id: str
    window_idx: int
    first: LossRow
    second: LossRow


def compare_runs(store: Store, first: str, second: str) -> SideBySide:
    """Compares two decided runs of one mailbox, by run id or adapter id; excluded threads and chunks are left out.

    Raises ``UsageError`` for an unknown run and for runs of different mailboxes, ``NothingToDo`` where a run has no verdict
    yet or the two have no chunk in common.
    """
    one, two = _side(store, first), _side(store, second)
    if one.mailbox != two.mailbox:
        raise UsageError(
            f"{first} is a run of {one.mailbox}, {second} one of {two.mailbox}", hint="compare runs of one mailbox"
        )
    ours, theirs = _losses(store, one), _losses(store, two)
    places = {
        chunk_id: (thread_id, window_idx)
        for chunk_id, thread_id, window_idx in store.query(
            "SELECT chunk_id, thread_id, window_idx FROM chunk_rows c WHERE mailbox = ? AND split IN ('val', 'test') "
            "AND NOT EXISTS (FROM exclusion_rows e WHERE e.mailbox = c.mailbox AND e.thread_id = c.thread_id "
            "AND (e.chunk_id IS NULL OR e.chunk_id = c.chunk_id))",
            [one.mailbox],
        )
    }
    both = [key for key in ours if key in theirs and key[0] in places]
    if not both:
        raise NothingToDo(f"{first} and {second} were measured on no chunk in common", hint="see `mailtide runs`")
    pairs = [_Pair(ours[key].split, *places[key[0]], ours[key], theirs[key]) for key in both]
    lacking = {key for key in set(ours) ^ set(theirs) if key[0] in places}
    return SideBySide(one, two, tuple(_paired(one, two, pairs)), len(lacking), tuple(_reported(store, one, two)))


def _side(store: Store, name: str) -> Side:
    asked = store.fetch(RequestRow, "run_id = ? OR adapter_id = ?", [name, name])
    if not asked:
        raise no_run(name)
    request = asked[0]
    for event in reversed(store.fetch(RunEventRow, "run_id = ?", [request.run_id])):
        checkpoint = json.loads(event.detail).get("checkpoint")
        if checkpoint:
            return Side(
                request.run_id, request.mailbox, request.adapter_id, checkpoint, event.status, tuple(request.windows)
            )
    raise NothingToDo(f"{name} has left nothing to compare: it has no verdict yet, or failed", hint="see `mailtide runs`")


def _losses(store: Store, side: Side) -> dict[tuple[str, int], LossRow]:
    """By chunk and evaluation version."""
    rows = store.fetch(
        LossRow, "mailbox = ? AND adapter_id = ? AND checkpoint = ?", [side.mailbox, side.adapter_id, side.checkpoint]
    )
    return {(row.chunk_id, row.eval_version): row for row in rows}


def _paired(one: Side, two: Side, pairs: Sequence[_Pair]) -> list[Paired]:
    groups = {"all": None, f"new in {one.run_id}": set(one.windows), f"new in {two.run_id}": set(two.windows)}
    found = []
    for split in (Split.VAL.value, Split.TEST.value):
        for name, windows in groups.items():
            some = [pair for pair in pairs if pair.split == split and (windows is None or pair.window_idx in windows)]
            row = _difference(split, name, some)
            if row is not None:
                found.append(row)
    return found


def _difference(split: str, windows: str, pairs: Sequence[_Pair]) -> Paired | None:
    """Per token where both cut the text into the same tokens, else per byte, which no tokenizer changes."""
    threads = [pair.thread_id for pair in pairs]
    if all(pair.first.n_tokens == pair.second.n_tokens for pair in pairs):
        unit, scale, sizes = NATS_PER_TOKEN, 1.0, [float(pair.first.n_tokens) for pair in pairs]
    else:
        unit, scale, sizes = BITS_PER_BYTE, 1 / math.log(2), [float(pair.first.n_bytes) for pair in pairs]
    ours, theirs = [scale * pair.first.nll for pair in pairs], [scale * pair.second.nll for pair in pairs]
    first, second = ratio_interval(ours, sizes, threads), ratio_interval(theirs, sizes, threads)
    difference = ratio_interval([b - a for a, b in zip(ours, theirs, strict=True)], sizes, threads)
    if first is None or second is None or difference is None:
        return None
    return Paired(split, windows, unit, len(pairs), first, second, difference)


def _reported(store: Store, one: Side, two: Side) -> list[Reported]:
    """Figures over all windows, in the order in which the runs reported them; those of no adapter (BM25) included."""
    ours, theirs = _figures(store, one), _figures(store, two)
    return [Reported(*name, ours.get(name), theirs.get(name)) for name in dict.fromkeys([*ours, *theirs])]


def _figures(store: Store, side: Side) -> Mapping[tuple[str, str], tuple[float, float | None, float | None]]:
    rows = store.query(
        "SELECT split, metric, value, ci_low, ci_high FROM metric_rows WHERE run_id = ? AND window_from IS NULL "
        "AND (adapter_id = 'bm25' OR (adapter_id = ? AND checkpoint = ?)) ORDER BY rowid",
        [side.run_id, side.adapter_id, side.checkpoint],
    )
    return {(split, metric): (value, low, high) for split, metric, value, low, high in rows}
