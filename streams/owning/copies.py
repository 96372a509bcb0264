"""Near copies across splits, found when a window closes: what is trained on must not be what is measured.

Each closing compares the window's new messages with one another and with those of every earlier window, by signatures
that are kept; what they make likely is read from the shards and compared word for word. Of a pair in two splits the
held-out chunk leaves evaluation: val where the other is train, test where it is train or val. Copies within one split are
no leak, and a reply's quotes are not among its words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.chunking.chunks import read_slice
from pipeline.chunking.texts import ShardTexts
from pipeline.copies.minhash import LIKELY, Bands, Signatures, agreement, bands_of, candidates
from pipeline.copies.shingles import Likeness, likeness
from pipeline.copies.signatures import Block, Passage, read_block, read_shard, write_block
from pipeline.domain import Split
from pipeline.home import Home, private_dir
from pipeline.runs.runfiles import NEAR_COPY
from pipeline.store import Store
from pipeline.store.rows import ClosingRow, ExclusionRow, ShardRow

_RANK = {Split.TRAIN.value: 0, Split.VAL.value: 1, Split.TEST.value: 2}
"""Of two splits the one with the higher rank is held out from the other."""

AT_ONCE = 1_024
"""Held-out passages that are compared at once: what they are compared with is then near them in the shards, mostly."""

SHARDS_OPEN = 8


@dataclass(frozen=True, slots=True)
class Pair:
    """A held-out passage, and one of another split that it is a near copy of."""

    held: Passage
    other: Passage
    likeness: Likeness

    @property
    def reason(self) -> str:
        """What people read, and what tells such an exclusion from others."""
        alike = f"Jaccard {self.likeness.jaccard:.2f}, {self.likeness.contained:.2f} contained"
        return f"{NEAR_COPY}{self.other.chunk_id} ({self.other.split}): {alike}"


@dataclass(frozen=True, slots=True)
class _Shelf:
    """Passages of one or more windows and their signatures, row by row.

    ``order`` names the rows of train before those of val before those of test: what is held out, and all that it is held
    out from, are a range each of ``ranks`` (of their splits) and ``bands``, which run along it.
    """

    passages: tuple[Passage, ...]
    signatures: Signatures
    order: npt.NDArray[np.intp]
    ranks: npt.NDArray[np.int8]
    bands: Bands

    @classmethod
    def of(cls, passages: tuple[Passage, ...], signatures: Signatures, order: npt.NDArray[np.intp], bands: Bands) -> _Shelf:
        """``order`` names every row once; ``bands`` run along it, and are sorted where they are."""
        ranks = np.array([_RANK[passages[row].split] for row in order], np.int8)
        by_rank = np.argsort(ranks, kind="stable")
        for keys in bands:
            keys[:] = keys[by_rank]
        return cls(passages, signatures, order[by_rank], ranks[by_rank], bands)

    @classmethod
    def of_block(cls, block: Block) -> _Shelf:
        return cls.of(block.passages, block.signatures, np.arange(len(block.passages)), bands_of(block.signatures))

    def with_(self, other: _Shelf) -> _Shelf:
        return _Shelf.of(
            (*self.passages, *other.passages),
            np.concatenate([self.signatures, other.signatures]),
            np.concatenate([self.order, other.order + len(self.order)]),
            np.concatenate([self.bands, other.bands], axis=1),
        )

    def parts(self, rank: int) -> Iterator[slice]:
        """The range of ``rank``, so much at a time as is compared at once; what belongs to a chunk stays together."""
        end, last = self.below(rank).stop, self.below(rank + 1).stop
        while end < last:
            first, end = end, min(end + AT_ONCE, last)
            while end < last and self._chunk(end) == self._chunk(end - 1):
                end += 1
            yield slice(first, end)

    def below(self, rank: int) -> slice:
        """The range of all ranks below ``rank``."""
        return slice(0, int(np.searchsorted(self.ranks, rank)))

    def _chunk(self, at: int) -> str:
        passage: Passage = self.passages[self.order[at]]
        return passage.chunk_id


class NearCopies:
    """The signatures of one mailbox, in memory for as long as its owner lives: about 700 bytes a message."""

    def __init__(self, store: Store, home: Home, mailbox: str) -> None:
        self._store = store
        self._home = home
        self._mailbox = mailbox
        self._folder = home.root / "signatures" / mailbox
        self._shelves: list[_Shelf] = []
        self._shards: dict[int, ShardRow] = {}

    def close(self, closing: ClosingRow, block: Block, shard: ShardRow) -> list[ExclusionRow]:
        """Keeps the block of a window whose shard was just written, and returns what must leave evaluation for it.

        The same whenever it is repeated: rows bear the closing's time. Raises ``ShardError`` for a damaged shard.
        """
        if closing.window_idx in self._shards or not self._shards:  # it was not committed the last time, or is the first
            rows = self._store.fetch(ShardRow, "mailbox = ?", [self._mailbox], "window_idx")
            self._shards = {row.window_idx: row for row in rows}
            self._shelves = []
            for row in rows:
                self._put(_Shelf.of_block(self._read(row)))
        self._shards[closing.window_idx] = shard
        write_block(self._path(block.window_idx), block)
        texts = _Texts(self._home, self._shards)
        gone: set[tuple[str, str | None]] | None = None
        found: dict[str, Pair] = {}
        new = _Shelf.of_block(block)
        for held, others in [(new, new), *((new, shelf) for shelf in self._shelves), *((s, new) for s in self._shelves)]:
            for one, other in _likely(held, others):
                gone = self._excluded() if gone is None else gone
                known = one.chunk_id in found or (one.thread_id, None) in gone or (one.thread_id, one.chunk_id) in gone
                seen = None if known else texts.likeness(one, other)
                if seen is not None and seen.near_copy:
                    found[one.chunk_id] = Pair(one, other, seen)
        self._put(new)
        return [
            ExclusionRow(self._mailbox, pair.held.thread_id, chunk_id, pair.reason, closing.window_idx, closing.closed_at)
            for chunk_id, pair in sorted(found.items())
        ]

    def _put(self, shelf: _Shelf) -> None:
        """Adds a shelf; those of like size become one, so that there are few, and each row is moved few times."""
        self._shelves.append(shelf)
        while len(self._shelves) > 1 and len(self._shelves[-2].passages) < 2 * len(self._shelves[-1].passages):
            last = self._shelves.pop()
            self._shelves[-1] = self._shelves[-1].with_(last)

    def _read(self, shard: ShardRow) -> Block:
        path = self._path(shard.window_idx)
        block = read_block(path, shard.window_idx)
        if block is None:
            block = read_shard(self._home.root / shard.shard_path, shard.shard_sha256, shard.window_idx)
            write_block(path, block)
        return block

    def _excluded(self) -> set[tuple[str, str | None]]:
        rows = self._store.fetch(ExclusionRow, "mailbox = ?", [self._mailbox])
        return {(row.thread_id, row.chunk_id) for row in rows}

    def _path(self, window_idx: int) -> Path:
        return private_dir(self._folder) / f"window={window_idx:06d}.parquet"


class _Texts:
    """Words of passages, from the shards."""

    def __init__(self, home: Home, shards: Mapping[int, ShardRow]) -> None:
        self._home = home
        self._shards = shards
        self._open: dict[int, ShardTexts] = {}

    def likeness(self, held: Passage, other: Passage) -> Likeness | None:
        """How alike they are, word for word; None where one was erased."""
        ours, theirs = self._words(held), self._words(other)
        return None if ours is None or theirs is None else likeness(ours, theirs)

    def _words(self, passage: Passage) -> str | None:
        window_idx = passage.window_idx
        if window_idx not in self._open:
            if len(self._open) >= SHARDS_OPEN:
                del self._open[next(iter(self._open))]
            shard = self._shards[window_idx]
            self._open[window_idx] = ShardTexts(self._home.root / shard.shard_path, shard.shard_sha256)
        message = self._open[window_idx].message(passage.chunk_id, passage.place)
        return None if message is None else read_slice(message).words


def _likely(held: _Shelf, others: _Shelf) -> Iterator[tuple[Passage, Passage]]:
    """Held-out passages and those of another split that their signatures make likely copies, of each chunk the likeliest
    first. They are compared with lower ranks alone: as few candidates of a passage are looked at, copies of its own split
    would hide the others."""
    for rank in (1, 2):
        theirs = others.bands[:, others.below(rank)]
        for part in held.parts(rank):
            places: npt.NDArray[Any] = candidates(held.bands[:, part], theirs)
            ours, near = held.order[places[:, 0] + part.start], others.order[places[:, 1]]
            alike = agreement(held.signatures[ours], others.signatures[near])
            for at in np.lexsort((places[:, 1], places[:, 0], -alike)):
                if alike[at] >= LIKELY:
                    yield held.passages[ours[at]], others.passages[near[at]]
