"""A mailbox's index on a Weaviate server, kept level with the vectors that lie in the home."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pipeline.store import Store
from registry.indexes import documents
from retrain.search.vectors import Vectors
from retrain.search.weaviate import Address, Held, Object, WeaviateIndex, WeaviateServer


@dataclass(frozen=True, slots=True)
class Remote:
    """A server, and the name by which it knows the store of this home: two homes may have mailboxes of one name."""

    address: Address
    store: str


@dataclass(frozen=True, slots=True)
class Levelled:
    """An index on a server that holds what the vectors hold; ``put`` mails were sent for that, ``anew`` when what was
    there was not what had been put there."""

    index: WeaviateIndex
    put: int
    anew: bool


def levelled(
    server: WeaviateServer, remote: Remote, mailbox: str, vectors: Vectors, texts: Callable[[int], Mapping[str, str]]
) -> Levelled:
    """Brings the server to what ``vectors`` holds. ``texts`` gives the masked texts of mails above an ordinal, by key; it
    is asked only when something is missing."""
    index = server.index(remote.store, mailbox)
    held = index.held()
    anew = held != held_up_to(vectors, held.newest)
    if anew:
        index = server.index(remote.store, mailbox, empty=True)
    after = -1 if anew else held.newest
    if after == vectors.newest:
        return Levelled(index, 0, anew)
    return Levelled(index, index.put(_objects(vectors, after, texts(after))), anew)


def held_up_to(vectors: Vectors, newest: int) -> Held:
    """What a server would hold that was given all vectors up to the ordinal ``newest``."""
    ordinals = [ordinal for ordinal in vectors.ordinals if ordinal <= newest]
    return Held(len(ordinals), ordinals[-1] if ordinals else -1, sum(ordinals))


def masked_texts(store: Store, mailbox: str, after: int) -> dict[str, str]:
    """What the server is given of mails above an ordinal: the texts that were embedded."""
    return {key: text for key, _, text in documents(store, mailbox, after)}


def _objects(vectors: Vectors, after: int, texts: Mapping[str, str]) -> Iterator[Object]:
    for key, ordinal, vector in zip(vectors.keys, vectors.ordinals, vectors.matrix, strict=True):
        if ordinal > after:
            yield Object(key, ordinal, texts.get(key, ""), vector)
