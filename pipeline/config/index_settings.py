"""Settings of the search that answers rest on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from pipeline.config.feed_settings import SecretSettings
from pipeline.config.groups import Group


class WeaviateSettings(Group):
    """A Weaviate server that holds the masked texts and vectors of mails, for the engine `weaviate`."""

    url: str = Field(default="http://127.0.0.1:8080", pattern=r"^https?://", description="the server")
    grpc_port: PositiveInt = Field(default=50051, description="its port for queries")
    secret: SecretSettings | None = Field(default=None, description="where its API key is; null: it asks for none")
    collection: str = Field(
        default="Mailtide", pattern=r"^[A-Z][_0-9A-Za-z]*$", description="collection with a tenant per mailbox"
    )
    timeout: PositiveFloat = Field(default=10.0, description="seconds without an answer before it counts as away")


class IndexSettings(Group):
    """What `ask` searches with."""

    engine: Literal["auto", "bm25", "vectors", "hybrid", "weaviate"] = Field(
        default="auto",
        description="words (bm25), vectors, both (hybrid), or both by a server (weaviate); auto: hybrid once "
        "`mailtide index rebuild` has made vectors, else bm25",
    )
    model: str = Field(
        default="minilm", description="embedding model: minilm (inside a package), or a sentence-transformers folder"
    )
    embed_when_idle: bool = Field(
        default=True, description="let the daemon embed new mail in its idle time, where the engine searches by vectors"
    )
    weaviate: WeaviateSettings = Field(default=WeaviateSettings(), description="the server of the engine weaviate")
