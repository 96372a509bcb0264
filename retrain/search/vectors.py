"""Exact search by vectors: every candidate is compared, so nothing is missed and no index structure has to be trained."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from retrain.search.embedder import Embedder, Matrix

BLOCK = 2048
"""Texts embedded between two chances to keep what is done."""

Document = tuple[str, int, str]
"""Key, ordinal of arrival, text."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """Documents in the order of their ordinals: ``digests`` are hex sha256 of the embedded texts, rows of ``matrix`` their
    vectors under the model named."""

    model: str
    keys: tuple[str, ...]
    ordinals: tuple[int, ...]
    digests: tuple[str, ...]
    matrix: Matrix

    @classmethod
    def none(cls, embedder: Embedder) -> Vectors:
        return cls(embedder.name, (), (), (), np.zeros((0, embedder.dimension), dtype=np.float32))

    @property
    def newest(self) -> int:
        """The highest ordinal held; -1 where there is none."""
        return self.ordinals[-1] if self.ordinals else -1

    def without(self, keys: Collection[str]) -> Vectors:
        """The same less the documents with these keys."""
        kept = [place for place, key in enumerate(self.keys) if key not in keys]
        return Vectors(
            self.model,
            tuple(self.keys[place] for place in kept),
            tuple(self.ordinals[place] for place in kept),
            tuple(self.digests[place] for place in kept),
            self.matrix[kept],
        )


@dataclass(frozen=True, slots=True)
class Embedded:
    """What an embedding has come to: all vectors so far, and how many texts the model has read for them."""

    vectors: Vectors
    read: int


def embed_documents(
    documents: Iterable[Document],
    embedder: Embedder,
    known: Vectors | None = None,
    *,
    after: Vectors | None = None,
    keep: Callable[[Embedded], None] = lambda embedded: None,
) -> Embedded:
    """Vectors of ``documents``, given in the order of their ordinals, put after those of ``after``.

    A text that ``known`` or ``after`` has a vector for is not read again; nor is one that comes twice. ``keep`` is told
    after every :data:`BLOCK` texts read, and what it is told can be continued from. Vectors of another model are not used.
    """
    start = after if after is not None and after.model == embedder.name else Vectors.none(embedder)
    cache: dict[str, Matrix] = {}
    for source in (known, start):
        if source is not None and source.model == embedder.name:
            cache.update(zip(source.digests, source.matrix, strict=True))
    done, read = start, 0
    block: list[tuple[str, int, str]] = []
    texts: dict[str, str] = {}

    def finish() -> Vectors:
        found = embedder.embed(list(texts.values()))
        cache.update(zip(texts, found, strict=True))
        rows = np.stack([cache[digest] for _, _, digest in block]) if block else found
        return Vectors(
            model=embedder.name,
            keys=(*done.keys, *(key for key, _, _ in block)),
            ordinals=(*done.ordinals, *(ordinal for _, ordinal, _ in block)),
            digests=(*done.digests, *(digest for _, _, digest in block)),
            matrix=np.concatenate([done.matrix, rows]),
        )

    for key, ordinal, text in documents:
        digest = hashlib.sha256(text.encode()).hexdigest()
        block.append((key, ordinal, digest))
        if digest not in cache:
            texts[digest] = text
        if len(texts) == BLOCK:
            done, read = finish(), read + len(texts)
            keep(Embedded(done, read))
            block, texts = [], {}
    return Embedded(finish(), read + len(texts))


class VectorIndex:
    """Documents by their vectors, asked by text through the embedder that made them."""

    def __init__(self, vectors: Vectors, embedder: Embedder) -> None:
        self._vectors = vectors
        self._ordinals = np.asarray(vectors.ordinals, dtype=np.int64)
        self._embedder = embedder
        self._asked: dict[str, Matrix] = {}

    def __len__(self) -> int:
        return len(self._vectors.keys)

    def expect(self, queries: Sequence[str]) -> None:
        """Embeds queries that will be asked, all at once, which takes less than one by one."""
        self._asked.update(zip(queries, self._embedder.embed(queries), strict=True))

    def search(self, query: str, k: int, *, before: int | None = None) -> list[tuple[str, float]]:
        """The ``k`` nearest by cosine among documents with an ordinal below ``before``; equal ones by the last arrival."""
        asked = self._asked.get(query)
        return self.nearest(self._embedder.embed([query])[0] if asked is None else asked, k, before=before)

    def nearest(self, vector: Matrix, k: int, *, before: int | None = None) -> list[tuple[str, float]]:
        """The same for a unit vector."""
        allowed = len(self) if before is None else int(np.searchsorted(self._ordinals, before, side="left"))
        if not allowed or k < 1:
            return []
        scores = self._vectors.matrix[:allowed] @ vector
        count = min(k, allowed)
        threshold = np.partition(scores, allowed - count)[allowed - count]
        ordered = sorted(np.flatnonzero(scores >= threshold).tolist(), key=lambda place: (-scores[place], -place))[:k]
        return [(self._vectors.keys[place], float(scores[place])) for place in ordered]
