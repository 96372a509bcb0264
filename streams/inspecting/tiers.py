"""A mailbox's chunks by quality tier: how many, how much of what is trained, their signals, and examples to look at."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.chunking.quality import SHARES, Quality
from pipeline.chunking.shards import read_meta, read_texts
from pipeline.chunking.tiers import scores_of
from pipeline.domain import Split
from pipeline.errors import UsageError
from pipeline.home import Home
from pipeline.store import Store
from pipeline.store.rows import ShardRow

QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9}
SHOWN_CHARACTERS = 400
"""Of an example's new text."""


@dataclass(frozen=True, slots=True)
class TierFigures:
    """One quality tier. ``share`` is of all tokens, ``train_share`` of those of the train split, ``trained`` counts chunks
    that a run has trained so far, ``trained_share`` is of their tokens. ``signals`` has each signal's quantiles,
    ``languages`` how many chunks are mainly in which."""

    tier: str
    chunks: int
    tokens: int
    share: float
    train_chunks: int
    train_tokens: int
    train_share: float
    trained: int
    trained_share: float
    signals: dict[str, dict[str, float]]
    languages: dict[str, int]


@dataclass(frozen=True, slots=True)
class TierExample:
    """A chunk, why it is of its tier, and how its new text begins; ``frozen`` is its class in the shard."""

    chunk_id: str
    tier: str
    frozen: str
    window_idx: int
    split: str
    n_tokens: int
    signals: dict[str, float]
    language: str
    text: str


@dataclass(frozen=True, slots=True)
class TierReport:
    """``windows`` are those that were looked at; ``erased`` counts chunks without text, of which no tier can be told."""

    mailbox: str
    windows: tuple[int, ...]
    chunks: int
    tokens: int
    erased: int
    tiers: tuple[TierFigures, ...]
    examples: tuple[TierExample, ...]


def tier_report(
    store: Store, home: Home, mailbox: str, *, window: int | None = None, tier: str | None = None, show: int = 0
) -> TierReport:
    """Of all closed windows, or of one; of all tiers, or of one, with ``show`` examples of each, drawn by hash.

    Planted canaries are no mail and are left out. Raises ``UsageError`` for a window that is not closed.
    """
    shards = store.fetch(ShardRow, "mailbox = ?", [mailbox], "window_idx")
    if window is not None:
        shards = [shard for shard in shards if shard.window_idx == window]
        if not shards:
            raise UsageError(f"{mailbox} has no closed window {window}", hint="see `mailtide windows`")
    trained = {row[0] for row in store.query("SELECT DISTINCT chunk_id FROM trained_rows WHERE mailbox = ?", [mailbox])}
    rows = [row for shard in shards for row in _rows(home, mailbox, shard, trained)]
    known = [row for row in rows if row["quality"] not in (None, Quality.CANARY)]
    names = [one.value for one in Quality if tier in (None, one.value)]
    own = {name: [row for row in known if row["quality"] == name] for name in names}
    examples = [row for name in names for row in sorted(own[name], key=_drawn)[:show]]
    return TierReport(
        mailbox=mailbox,
        windows=tuple(shard.window_idx for shard in shards),
        chunks=len(known),
        tokens=_tokens(known),
        erased=sum(row["quality"] is None for row in rows),
        tiers=tuple(_figures(name, own[name], known) for name in names if own[name]),
        examples=tuple(_examples(home, shards, examples)),
    )


def _rows(home: Home, mailbox: str, shard: ShardRow, trained: set[str]) -> Iterator[dict[str, Any]]:
    """A window's chunks with their scores, None where the text was erased."""
    folder = home.root / shard.shard_path
    scores = scores_of(home, mailbox, shard.window_idx, folder, shard.shard_sha256).to_pylist()
    found = {row["chunk_id"]: row for row in scores}
    columns = ("chunk_id", "window_idx", "split", "tier", "n_tokens")
    for row in read_meta(folder, shard.shard_sha256, columns=columns).to_pylist():
        yield {"quality": None, **row, **found.get(row["chunk_id"], {}), "trained": row["chunk_id"] in trained}


def _figures(name: str, own: Sequence[dict[str, Any]], everything: Sequence[dict[str, Any]]) -> TierFigures:
    train = [row for row in own if row["split"] == Split.TRAIN]
    trainable = _tokens(row for row in everything if row["split"] == Split.TRAIN)
    languages: dict[str, int] = {}
    for row in own:
        languages[row["language"]] = languages.get(row["language"], 0) + 1
    return TierFigures(
        tier=name,
        chunks=len(own),
        tokens=_tokens(own),
        share=_tokens(own) / (_tokens(everything) or 1),
        train_chunks=len(train),
        train_tokens=_tokens(train),
        train_share=_tokens(train) / (trainable or 1),
        trained=sum(row["trained"] for row in own),
        trained_share=_tokens(row for row in own if row["trained"])
        / (_tokens(row for row in everything if row["trained"]) or 1),
        signals={
            signal: {
                label: float(np.quantile([row[signal] for row in own], at, method="inverted_cdf"))
                for label, at in QUANTILES.items()
            }
            for signal in SHARES
        },
        languages=dict(sorted(languages.items(), key=lambda item: -item[1])),
    )


def _examples(home: Home, shards: Sequence[ShardRow], rows: Sequence[dict[str, Any]]) -> Iterator[TierExample]:
    texts: dict[str, str] = {}
    for shard in shards:
        wanted = [row["chunk_id"] for row in rows if row["window_idx"] == shard.window_idx]
        if wanted:
            folder = home.root / shard.shard_path
            starts = read_meta(folder, shard.shard_sha256, columns=("chunk_id", "new_from")).to_pylist()
            new_from = {row["chunk_id"]: row["new_from"] for row in starts}
            for chunk_id, text in read_texts(folder, shard.shard_sha256, wanted, excluded=wanted).items():
                texts[chunk_id] = text[new_from[chunk_id] :][:SHOWN_CHARACTERS]
    for row in rows:
        yield TierExample(
            chunk_id=row["chunk_id"],
            tier=row["quality"],
            frozen=row["tier"],
            window_idx=row["window_idx"],
            split=row["split"],
            n_tokens=row["n_tokens"],
            signals={signal: row[signal] for signal in SHARES},
            language=row["language"],
            text=texts.get(row["chunk_id"], ""),
        )


def _tokens(rows: Iterable[dict[str, Any]]) -> int:
    return sum(row["n_tokens"] for row in rows)


def _drawn(row: dict[str, Any]) -> bytes:
    return hashlib.sha256(row["chunk_id"].encode()).digest()
