"""A BM25 index over texts that arrived in an order; a query sees only what arrived before a given moment."""

from __future__ import annotations

import json
import logging
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import numpy.typing as npt

from pipeline.errors import MailtideError
from pipeline.home import private_dir, sha256_file, write_atomic
from retrain.search.bm25_tail import K1, B, Statistics, Tail

WORD = re.compile(r"[^\W_]+(?:['’][^\W\d_]+)?")
"""Runs of letters and digits of any script; an apostrophe joins (``don't``), nothing else does."""

INDEX_FORMAT = 3
DOCUMENTS = "documents.json"

logging.getLogger(bm25s.__name__).setLevel(logging.WARNING)  # the package asks for its debug lines when imported

UNSPACED = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]{2,}")
"""Scripts that put no space between words (Thai, Lao, kana, Han)."""


def words(text: str) -> list[str]:
    """Case-folded words and numbers, whatever the language: no stop words, no stemming. Where a script has no spaces,
    pairs of neighbouring characters stand for words."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    if not UNSPACED.search(plain):
        return WORD.findall(plain)
    found: list[str] = []
    for word in WORD.findall(plain):
        runs = UNSPACED.findall(word)
        if runs:
            found.extend(run[place : place + 2] for run in runs for place in range(len(run) - 1))
            found.extend(part for part in UNSPACED.split(word) if part)
        else:
            found.append(word)
    return found


class Bm25Index:
    """Documents by key, each with the ordinal at which it arrived (Lucene's BM25, k1 1.5, b 0.75).

    Built over everything, and extended by what comes later; a search filters by ordinal before it takes the best k. Word
    statistics are of the whole that it was built over, which shifts scores, not who may be found.
    """

    def __init__(
        self, keys: list[str], ordinals: npt.ArrayLike, retriever: Any, mean_words: float, tail: Tail | None = None
    ) -> None:
        self._keys = keys
        self._ordinals = np.asarray(ordinals, dtype=np.int64)
        self._retriever = retriever
        self._mean_words = mean_words
        self._tail = tail or Tail()

    def __len__(self) -> int:
        return len(self._keys) + len(self._tail.keys)

    @classmethod
    def build(cls, docs: Iterable[tuple[str, int, str]]) -> Bm25Index:
        """Indexes (key, ordinal, text) documents; their order does not matter to results."""
        rows = sorted((ordinal, key, words(text)) for key, ordinal, text in docs)
        known: dict[str, int] = {}
        ids = [[known.setdefault(word, len(known)) for word in tokens] for _, _, tokens in rows]
        retriever = None
        if known:
            retriever = bm25s.BM25(method="lucene", k1=K1, b=B)
            retriever.index((ids, dict(known)), create_empty_token=True, show_progress=False)
        mean_words = sum(map(len, ids)) / len(ids) if ids else 0.0
        return cls([key for _, key, _ in rows], [ordinal for ordinal, _, _ in rows], retriever, mean_words)

    def extended(self, docs: Iterable[tuple[str, int, str]]) -> Bm25Index:
        """This index and documents that came after all of its own, for a few: each is looked at in every search."""
        rows = sorted((ordinal, key, words(text)) for key, ordinal, text in docs)
        ordinals = [*self._ordinals[-1:].tolist(), *(ordinal for ordinal, _, _ in rows)]
        if ordinals != sorted(ordinals):
            raise ValueError("documents that extend an index must have come after its own")
        return Bm25Index(
            self._keys,
            np.append(self._ordinals, [ordinal for ordinal, _, _ in rows]),
            self._retriever,
            self._mean_words,
            self._tail.with_([(key, found) for _, key, found in rows]),
        )

    def search(self, query: str, k: int, *, before: int | None = None) -> list[tuple[str, float]]:
        """The best ``k`` documents with an ordinal below ``before``, best first; only such as share a word with the query.

        Equal scores go to the one that arrived last.
        """
        allowed = len(self) if before is None else int(np.searchsorted(self._ordinals, before, side="left"))
        asked = words(query)
        if not allowed or not asked or k < 1:
            return []
        scores = self._scores(asked)[:allowed]
        count = min(k, allowed)
        best = np.argpartition(-scores, count - 1)[:count]
        threshold = scores[best].min()
        candidates = np.flatnonzero(scores >= max(threshold, np.nextafter(0, 1)))
        ordered = sorted(candidates.tolist(), key=lambda place: (-scores[place], -place))[:k]
        return [(self._key(place), float(scores[place])) for place in ordered]

    def _scores(self, asked: Sequence[str]) -> npt.NDArray[np.floating[Any]]:
        """Of every document, those of the tail last."""
        known = [word for word in asked if self._holding(word)]
        built = np.asarray(self._retriever.get_scores(known)) if known else np.zeros(len(self._keys))
        if not self._tail.keys:
            return built
        index = Statistics(len(self._keys), self._mean_words, self._holding)
        return np.concatenate([built, self._tail.scores(asked, index)])

    def _holding(self, word: str) -> int:
        """How many documents hold a word, the tail's apart."""
        if self._retriever is None or word not in self._retriever.vocab_dict:
            return 0
        starts, column = self._retriever.scores["indptr"], self._retriever.vocab_dict[word]
        return int(starts[column + 1] - starts[column])

    def _key(self, place: int) -> str:
        return self._keys[place] if place < len(self._keys) else self._tail.keys[place - len(self._keys)]

    def save(self, folder: Path) -> None:
        """Writes the index to ``folder``, as it was built; the file that :meth:`load` asks for first is written last."""
        private_dir(folder)
        if self._retriever is not None:
            self._retriever.save(str(folder), show_progress=False)
        document = {
            "format": INDEX_FORMAT,
            "words": self._retriever is not None,
            "keys": self._keys,
            "ordinals": self._ordinals[: len(self._keys)].tolist(),
            "mean_words": self._mean_words,
            "sha256": {path.name: sha256_file(path) for path in sorted(folder.iterdir()) if path.name != DOCUMENTS},
        }
        for path in folder.iterdir():
            path.chmod(0o600)
        write_atomic(folder / DOCUMENTS, json.dumps(document).encode())

    @classmethod
    def load(cls, folder: Path) -> Bm25Index:
        """Reads back what :meth:`save` wrote; raises ``MailtideError`` when it is missing, of another version, or when a
        byte differs."""
        try:
            document = json.loads((folder / DOCUMENTS).read_bytes())
            if document["format"] != INDEX_FORMAT:
                raise ValueError(f"format {document['format']}")
            for name, sha256 in document["sha256"].items():
                if sha256_file(folder / name) != sha256:
                    raise ValueError(f"{name} is not as it was written")
            retriever = bm25s.BM25.load(str(folder), show_progress=False) if document["words"] else None
            return cls(document["keys"], document["ordinals"], retriever, document["mean_words"])
        except (OSError, ValueError, KeyError) as error:
            raise MailtideError(
                f"the index in {folder} cannot be read ({error})", hint="remove it; it is derived data"
            ) from error
