"""Search engines on one collection, asked the same queries, side by side."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from retrain.search.beir import Collection
from retrain.search.bm25 import Bm25Index
from retrain.search.embedder import Embedder
from retrain.search.engines import Engine, Fused, rank
from retrain.search.gold import Query
from retrain.search.rankings import Ranked, judge
from retrain.search.vector_file import read_vectors, write_vectors
from retrain.search.vectors import Embedded, VectorIndex, Vectors, embed_documents
from retrain.search.weaviate import Address, Object, WeaviateIndex, WeaviateServer, connected

BM25, VECTORS, HYBRID, WEAVIATE = "bm25", "vectors", "hybrid", "weaviate"
ENGINES = (BM25, VECTORS, HYBRID)
"""Those that need no server."""

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
    server: Callable[[], Address] | None = None,
    told: Callable[[int], None] = lambda read: None,
) -> list[Trial]:
    """Every engine on every split. ``embedder`` is called only where an engine needs one, ``server`` only for Weaviate,
    which holds the collection for as long as this takes; vectors are kept in the folder ``vectors``, and ``told`` hears
    how many texts were embedded so far."""
    built: dict[str, Engine] = {}
    with ExitStack() as stack:
        if BM25 in engines or HYBRID in engines:
            built[BM25] = Bm25Index.build(collection.documents)
        if {VECTORS, HYBRID, WEAVIATE} & set(engines):
            model = embedder()
            embedded = _embedded(collection, model, vectors, told)
            built[VECTORS] = _vector_index(collection, embedded, model)
            if WEAVIATE in engines:
                if server is None:
                    raise ValueError("the engine weaviate needs a server")
                there = stack.enter_context(connected(server(), model))
                built[WEAVIATE] = stack.enter_context(_on_server(there, collection, embedded))
        if HYBRID in engines:
            built[HYBRID] = Fused((built[BM25], built[VECTORS]))
        trials = []
        for split, queries in collection.queries.items():
            for name in engines:
                found = tuple(map(tuple, rank(built[name], queries, RUN_DEPTH)))
                trials.append(Trial(name, split, queries, found, judge(queries, found, relevant=relevant)))
    return trials


def _embedded(collection: Collection, embedder: Embedder, folder: Path, told: Callable[[int], None]) -> Vectors:
    known = read_vectors(folder)

    def keep(embedded: Embedded) -> None:
        write_vectors(folder, embedded.vectors)
        told(embedded.read)

    embedded = embed_documents(collection.documents, embedder, known, keep=keep)
    if embedded.read or known is None:
        keep(embedded)
    return embedded.vectors


def _vector_index(collection: Collection, vectors: Vectors, embedder: Embedder) -> VectorIndex:
    index = VectorIndex(vectors, embedder)
    index.expect([query.text for queries in collection.queries.values() for query in queries])
    return index


@contextmanager
def _on_server(server: WeaviateServer, collection: Collection, vectors: Vectors) -> Iterator[WeaviateIndex]:
    """The collection as a tenant of its own, removed afterwards."""
    name = uuid.uuid4().hex
    index = server.index(name, name)
    try:
        texts = {key: text for key, _, text in collection.documents}
        index.put(
            Object(key, ordinal, texts[key], vector)
            for key, ordinal, vector in zip(vectors.keys, vectors.ordinals, vectors.matrix, strict=True)
        )
        yield index
    finally:
        server.remove(name, name)
