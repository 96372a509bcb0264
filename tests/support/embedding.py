"""A small, real embedder for tests: texts that share letter sequences are near each other. No model has to be loaded."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from retrain.search.embedder import Matrix


class TrigramEmbedder:
    """Counts of hashed trigrams, as unit vectors. ``read`` counts the texts that it was given."""

    def __init__(self, name: str = "trigrams", dimension: int = 64) -> None:
        self.name = name
        self.dimension = dimension
        self.read = 0

    def embed(self, texts: Sequence[str]) -> Matrix:
        self.read += len(texts)
        rows = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            padded = f"  {text.casefold()} "
            for place in range(len(padded) - 2):
                row[zlib.crc32(padded[place : place + 3].encode()) % self.dimension] += 1
            row /= np.linalg.norm(row)
        return rows
