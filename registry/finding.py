"""Which mails fit a question: by words, by vectors, by both, or by a server that does both, as the settings say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.config.index_settings import IndexSettings
from pipeline.home import Home
from pipeline.store import Store
from registry.indexes import add_vectors, documents, lag, open_words, passage_of, stored_vectors, vectors_folder, writing
from registry.passages import passages
from registry.remote_indexes import Remote, levelled, masked_texts
from retrain.search.embedder import Embedder, model_there
from retrain.search.engines import FUSED_DEPTH, fuse
from retrain.search.vector_file import read_note
from retrain.search.vectors import VectorIndex, Vectors
from retrain.search.weaviate import connected

PASSAGES_A_MAIL = 8
"""How many passages are asked for per mail wanted, as the best ones often stand in one mail."""

AT_ONCE = 100
"""New mails that are embedded while somebody waits for an answer; where there are more, the answer does without them."""

READ_PASSAGES = 12
"""Passages of a mail that are compared with the question where only its vector was found."""


Engine = Literal["bm25", "vectors", "hybrid", "weaviate"]


@dataclass(frozen=True, slots=True)
class Search:
    """What finds the mails of one mailbox, loaded and ready. Every engine but ``bm25`` needs the embedder, and ``weaviate``
    its server too."""

    engine: Engine
    embedder: Embedder | None = None
    remote: Remote | None = None


BY_WORDS = Search("bm25")


@dataclass(frozen=True, slots=True)
class Hit:
    """A mail that fits, and the place of the passage that does where it is known."""

    message_key: str
    score: float
    passage: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Found:
    """The hits, best first; ``unknown`` counts mails that the vectors do not hold yet, which only words can find."""

    hits: tuple[Hit, ...]
    unknown: int = 0


def find(store: Store, home: Home, mailbox: str, question: str, k: int, search: Search = BY_WORDS) -> Found:
    """The ``k`` mails that fit best; indexes are brought up to date first."""
    engine, embedder = search.engine, search.embedder
    if engine == "bm25":
        return Found(tuple(_by_words(store, home, mailbox, question, k)[:k]))
    if embedder is None:
        raise ValueError(f"{engine} needs an embedder")
    vectors, unknown = _vectors(store, home, mailbox, embedder)
    if engine == "weaviate":
        if search.remote is None:
            raise ValueError("weaviate needs a server")
        return Found(_by_server(store, mailbox, question, k, vectors, embedder, search.remote), unknown)
    near = VectorIndex(vectors, embedder).search(question, FUSED_DEPTH)
    if engine == "vectors":
        return Found(tuple(Hit(key, score, None) for key, score in near[:k]), unknown)
    by_words = {hit.message_key: hit for hit in _by_words(store, home, mailbox, question, FUSED_DEPTH)}
    fused = fuse([list(by_words), [key for key, _ in near]], k)
    return Found(
        tuple(Hit(key, score, by_words[key].passage if key in by_words else None) for key, score in fused), unknown
    )


def chosen_engine(settings: IndexSettings, home: Home, mailbox: str) -> Engine:
    """The engine that the settings mean for a mailbox: ``auto`` is hybrid where vectors and their model are there."""
    if settings.engine != "auto":
        return settings.engine
    there = read_note(vectors_folder(home, mailbox)) is not None and model_there(settings.model)
    return "hybrid" if there else "bm25"


def nearest_passage(text: str, question: str, embedder: Embedder | None) -> tuple[int, int]:
    """The passage of a mail that is nearest to the question, among its first ones; an empty one of an empty text."""
    places = list(passages(text))[:READ_PASSAGES]
    if not places or embedder is None:
        return places[0] if places else (0, 0)
    rows = embedder.embed([question, *(text[start:end] for start, end in places)])
    return places[int((rows[1:] @ rows[0]).argmax())]


def _by_words(store: Store, home: Home, mailbox: str, question: str, k: int) -> list[Hit]:
    """Mails by their best passage, best first: at most as many as ``k`` times some passages belong to."""
    best: dict[str, Hit] = {}
    for name, score in open_words(store, home, mailbox).search(question, k * PASSAGES_A_MAIL):
        message_key, start, end = passage_of(name)
        best.setdefault(message_key, Hit(message_key, score, (start, end)))
    return list(best.values())


def _by_server(
    store: Store, mailbox: str, question: str, k: int, vectors: Vectors, embedder: Embedder, remote: Remote
) -> tuple[Hit, ...]:
    with connected(remote.address, embedder) as server:
        level = levelled(server, remote, mailbox, vectors, lambda after: masked_texts(store, mailbox, after))
        return tuple(Hit(key, score, None) for key, score in level.index.search(question, k))


def _vectors(store: Store, home: Home, mailbox: str, embedder: Embedder) -> tuple[Vectors, int]:
    """The vectors, with the newest mails where these are few and nobody else is at it; and how many are not in them."""
    vectors = stored_vectors(home, mailbox, embedder)
    unknown = lag(store, mailbox, vectors.newest)
    if not 0 < unknown <= AT_ONCE:
        return vectors, unknown
    with writing(home, mailbox) as allowed:
        if not allowed:
            return vectors, unknown
        new = list(documents(store, mailbox, vectors.newest))
        return add_vectors(home, mailbox, new, embedder, vectors).vectors, 0
