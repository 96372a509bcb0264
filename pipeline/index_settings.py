"""Settings of the search that answers rest on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.groups import Group


class IndexSettings(Group):
    """What `ask` searches with."""

    engine: Literal["auto", "bm25", "vectors", "hybrid"] = Field(
        default="auto",
        description="words (bm25), vectors, or both (hybrid); auto: hybrid once `mailtide index rebuild` has made "
        "vectors, else bm25",
    )
    model: str = Field(
        default="minilm", description="embedding model: minilm (inside a package), or a sentence-transformers folder"
    )
