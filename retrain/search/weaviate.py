"""A Weaviate server as a search engine: words and our own vectors, one tenant per mailbox, fused by the server.

What the server holds is derived: ids follow from the keys, so that the same mail put twice is one object, and :class:`Held`
says in three numbers whether it is what was put there.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import MailtideError
from pipeline.installing import install_hint
from retrain.search.embedder import Embedder, Matrix

FORMAT = 1
"""Raised when other properties, or other texts, would be put there."""
NAMESPACE = uuid.UUID("9a1f2f0e-6a3c-5c52-9d0b-2f4f3cbb6b5e")
"""Drawn once, for ids of objects and names of tenants."""
KEY, ORDINAL, TEXT = "message_key", "ordinal", "text"
AT_ONCE = 200
"""Objects put in one request."""
LONGEST = 200_000
"""Characters of a text that the server is given; more would be no better found."""
WITHOUT = "start it or correct index.weaviate; index.engine: hybrid searches without a server"


@dataclass(frozen=True, slots=True)
class Held:
    """What a tenant holds: objects, the highest of their ordinals (-1 without any), and the sum of these."""

    documents: int
    newest: int
    total: int


NOTHING = Held(0, -1, 0)


@dataclass(frozen=True, slots=True)
class Object:
    """One document with its vector (unit length)."""

    key: str
    ordinal: int
    text: str
    vector: Matrix


class WeaviateIndex:
    """The documents of one tenant, asked by text through the embedder that made their vectors."""

    def __init__(self, tenant: Any, embedder: Embedder) -> None:
        self._tenant = tenant
        self._embedder = embedder

    def search(self, query: str, k: int, *, before: int | None = None) -> list[tuple[str, float]]:
        """The ``k`` best by words and vectors, ranks fused by the server with equal weight; the filter on arrival comes
        before the best are taken."""
        from weaviate.classes.query import HybridFusion, MetadataQuery

        if k < 1 or before == 0:
            return []
        with _told():
            found = self._tenant.query.hybrid(
                query,
                vector=self._embedder.embed([query])[0].tolist(),
                alpha=0.5,
                fusion_type=HybridFusion.RANKED,
                query_properties=[TEXT],
                filters=_before(before),
                limit=k,
                return_properties=[KEY],
                return_metadata=MetadataQuery(score=True),
            )
        return [(str(one.properties[KEY]), float(one.metadata.score)) for one in found.objects]

    def nearest(self, vector: Matrix, k: int, *, before: int | None = None) -> list[tuple[str, float]]:
        """The ``k`` nearest by cosine to a unit vector, as far as the server's approximate index finds them."""
        from weaviate.classes.query import MetadataQuery

        with _told():
            found = self._tenant.query.near_vector(
                vector.tolist(),
                limit=k,
                filters=_before(before),
                return_properties=[KEY],
                return_metadata=MetadataQuery(distance=True),
            )
        return [(str(one.properties[KEY]), 1.0 - float(one.metadata.distance)) for one in found.objects]

    def held(self) -> Held:
        """What the server holds of this mailbox, counted by it."""
        from weaviate.classes.aggregate import Metrics

        with _told():
            told = self._tenant.aggregate.over_all(
                total_count=True, return_metrics=Metrics(ORDINAL).integer(count=True, maximum=True, sum_=True)
            )
        if not told.total_count:
            return NOTHING
        ordinals = told.properties[ORDINAL]
        return Held(int(told.total_count), int(ordinals.maximum), int(ordinals.sum_))

    def put(self, objects: Iterable[Object]) -> int:
        """Puts documents there, or over those of the same key; how many. What was put before an error stays."""
        from weaviate.classes.data import DataObject

        count = 0
        block: list[Any] = []

        def send() -> None:
            with _told():
                answer = self._tenant.data.insert_many(block)
            if answer.has_errors:
                first = next(iter(answer.errors.values()))
                raise MailtideError(
                    f"Weaviate did not take {len(answer.errors)} of {len(block)} mails: {first.message}",
                    hint="see the server's log; the next `mailtide index rebuild` puts what is missing",
                )

        for one in objects:
            block.append(
                DataObject(
                    properties={KEY: one.key, ORDINAL: one.ordinal, TEXT: one.text[:LONGEST]},
                    uuid=uuid.uuid5(NAMESPACE, one.key),
                    vector=one.vector.tolist(),
                )
            )
            count += 1
            if len(block) == AT_ONCE:
                send()
                block = []
        if block:
            send()
        return count


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is and what it is asked for; ``seconds`` is how long it may take to answer."""

    url: str
    grpc_port: int
    collection: str
    key: str | None
    seconds: float


class WeaviateServer:
    """A connection, and the collection that holds mail embedded by one model."""

    def __init__(self, client: Any, address: Address, embedder: Embedder) -> None:
        self._client = client
        self._address = address
        self._embedder = embedder

    def index(self, store: str, mailbox: str, *, empty: bool = False) -> WeaviateIndex:
        """The tenant of a mailbox of a store, made where it is not there; with ``empty``, what it held is removed first.

        Raises ``MailtideError`` when the collection is somebody else's or of another model.
        """
        from weaviate.classes.tenants import Tenant

        collection = self._collection()
        name = _tenant(store, mailbox)
        with _told():
            if empty:
                collection.tenants.remove([name])
            if empty or not collection.tenants.exists(name):
                collection.tenants.create([Tenant(name=name)])
            return WeaviateIndex(collection.with_tenant(name), self._embedder)

    def remove(self, store: str, mailbox: str) -> None:
        """Removes a mailbox's tenant, if it is there."""
        with _told():
            self._collection().tenants.remove([_tenant(store, mailbox)])

    def _collection(self) -> Any:
        from weaviate.classes.config import Configure, DataType, Property, Tokenization, VectorDistances

        name = self._address.collection
        with _told():
            if not self._client.collections.exists(name):
                self._client.collections.create(
                    name,
                    description=self._description,
                    multi_tenancy_config=Configure.multi_tenancy(enabled=True),
                    vector_config=Configure.Vectors.self_provided(
                        vector_index_config=Configure.VectorIndex.hnsw(distance_metric=VectorDistances.COSINE)
                    ),
                    properties=[
                        Property(
                            name=KEY,
                            data_type=DataType.TEXT,
                            tokenization=Tokenization.FIELD,
                            index_filterable=False,
                            index_searchable=False,
                        ),
                        Property(name=ORDINAL, data_type=DataType.INT, index_filterable=True, index_range_filters=True),
                        Property(name=TEXT, data_type=DataType.TEXT, index_filterable=False, index_searchable=True),
                    ],
                )
            found = self._client.collections.use(name)
            described = found.config.get(simple=True).description
        if described != self._description:
            raise MailtideError(
                f"the collection {name} of {self._address.url} is {_quoted(described)}, "
                f"and what is needed here is '{self._description}'",
                hint="set index.weaviate.collection to a name of its own, or remove that collection",
            )
        return found

    @property
    def _description(self) -> str:
        return f"mailtide index {FORMAT}: {self._embedder.name}, {self._embedder.dimension} dimensions"


@contextlib.contextmanager
def connected(address: Address, embedder: Embedder) -> Iterator[WeaviateServer]:
    """A connection for the length of a ``with``. Raises ``MailtideError`` when no server answers in time, when it lets
    nobody in with that key, or when it is too old for the client."""
    try:
        import weaviate
        from weaviate.classes.init import AdditionalConfig, Auth, Timeout
    except ImportError as error:
        raise MailtideError(
            "the engine weaviate needs the package weaviate-client", hint=install_hint("weaviate")
        ) from error
    parts = urlsplit(address.url)
    secure = parts.scheme == "https"
    host = parts.hostname or ""
    with _told(address):
        client = weaviate.connect_to_custom(
            http_host=host,
            http_port=parts.port or (443 if secure else 80),
            http_secure=secure,
            grpc_host=host,
            grpc_port=address.grpc_port,
            grpc_secure=secure,
            auth_credentials=Auth.api_key(address.key) if address.key else None,
            additional_config=AdditionalConfig(
                timeout=Timeout(init=address.seconds, query=address.seconds, insert=4 * address.seconds),
                trust_env=False,
            ),
        )
    try:
        yield WeaviateServer(client, address, embedder)
    finally:
        client.close()


def _tenant(store: str, mailbox: str) -> str:
    return uuid.uuid5(NAMESPACE, f"{store}/{mailbox}").hex


def _before(ordinal: int | None) -> Any:
    from weaviate.classes.query import Filter

    return None if ordinal is None else Filter.by_property(ORDINAL).less_than(ordinal)


@contextlib.contextmanager
def _told(address: Address | None = None) -> Iterator[None]:
    """The client's errors as ours, in one line each."""
    import httpx
    from weaviate.exceptions import WeaviateBaseError

    try:
        yield
    except (WeaviateBaseError, httpx.HTTPError, OSError) as error:
        where = f" at {address.url}" if address else ""
        lines = str(getattr(error, "message", "") or error or type(error).__name__).strip().splitlines()
        raise MailtideError(f"Weaviate{where} cannot be used: {lines[0]}", hint=WITHOUT) from error


def _quoted(description: str | None) -> str:
    return f"'{description}'" if description else "not one of mailtide's"
