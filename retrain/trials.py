"""Search engines on one collection, asked the same queries, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrain.beir import Collection
from retrain.bm25 import Bm25Index
from retrain.embedder import Embedder
from retrain.engines import Engine, Fused, rank
from retrain.gold import Query
from retrain.rankings import Ranked, judge
from retrain.vector_file import read_vectors, write_vectors
from retrain.vectors import Embedded, VectorIndex, embed_documents

BM25, VECTORS, HYBRID = "bm25", "vectors", "hybrid"
ENGINES = (BM25, VECTORS, HYBRID)

RUN_DEPTH = 100
"""How far down rankings are kept in run files."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What one engine found for the queries of one split, and how good that is."""

    engine: str
    split: str
    queries: tuple[Query, ...]
    found: tuple[tuple[str, ...], ...]
    ranked: Ranked


def compare(
    collection: Collection,
    engines: Sequence[str],
    *,
    relevant: int,
    embedder: Callable[[], Embedder],
    vectors: Path,
    told: Callable[[int], None] = lambda read: None,
) -> list[Trial]:
    """Every engine on every split. ``embedder`` is called only where an engine needs one; vectors are kept in the folder
    ``vectors``, and ``told`` hears how many texts were embedded so far."""
    built: dict[str, Engine] = {}
    if BM25 in engines or HYBRID in engines:
        built[BM25] = Bm25Index.build(collection.documents)
    if VECTORS in engines or HYBRID in engines:
        built[VECTORS] = _vector_index(collection, embedder(), vectors, told)
    if HYBRID in engines:
        built[HYBRID] = Fused((built[BM25], built[VECTORS]))
    trials = []
    for split, queries in collection.queries.items():
        for name in engines:
            found = rank(built[name], queries, RUN_DEPTH)
            trials.append(Trial(name, split, queries, tuple(map(tuple, found)), judge(queries, found, relevant=relevant)))
    return trials


def _vector_index(collection: Collection, embedder: Embedder, folder: Path, told: Callable[[int], None]) -> VectorIndex:
    known = read_vectors(folder)

    def keep(embedded: Embedded) -> None:
        write_vectors(folder, embedded.vectors)
        told(embedded.read)

    embedded = embed_documents(collection.documents, embedder, known, keep=keep)
    if embedded.read or known is None:
        keep(embedded)
    index = VectorIndex(embedded.vectors, embedder)
    index.expect([query.text for queries in collection.queries.values() for query in queries])
    return index
