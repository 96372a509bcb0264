"""Settings of the search that answers rest on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, field_validator

from pipeline.feed_settings import SecretSettings
from pipeline.groups import Group


class WeaviateSettings(Group):
    """A Weaviate server; used only with ``index.engine: weaviate``."""

    url: str = Field(default="http://127.0.0.1:8080", description="of its REST interface")
    grpc_port: PositiveInt = Field(default=50051, description="its gRPC port, on the same host")
    collection: str = Field(default="Mailtide", description="holds one tenant per mailbox")
    secret: SecretSettings | None = Field(default=None, description="where the API key is: env, keyring or command")

    @field_validator("collection")
    @classmethod
    def _is_a_class_name(cls, name: str) -> str:
        if not (name.isascii() and name.isidentifier() and name[0].isupper()):
            raise ValueError("must begin with a capital letter and hold letters, digits and _ only")
        return name


class IndexSettings(Group):
    """What `ask` searches with."""

    engine: Literal["bm25", "vectors", "hybrid", "weaviate"] = Field(
        default="bm25", description="words (bm25), vectors, both (hybrid), or a Weaviate server's hybrid search"
    )
    model: str = Field(
        default="minilm", description="embedding model: minilm (inside a package), or a sentence-transformers folder"
    )
    weaviate: WeaviateSettings = WeaviateSettings()
