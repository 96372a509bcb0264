"""Documents that came after an index of words was built: scored one by one as it would score them, so that it need not be
built anew for each.

BM25 as Lucene counts it (Kamphuis and others 2020, "Which BM25 do you mean?"), which :mod:`bm25s` computes ahead of time.
How rare a word is, and how long a document, are those of the index; of a word that it does not know, those of the tail.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

K1, B = 1.5, 0.75


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of an index: how many documents it holds, their mean words, and how many of them hold a word."""

    documents: int
    mean_words: float
    holding: Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Tail:
    """Documents in order: their keys, and how often each word is in each."""

    keys: tuple[str, ...] = ()
    counts: tuple[Counter[str], ...] = ()

    def with_(self, documents: Sequence[tuple[str, Sequence[str]]]) -> Tail:
        """This and more documents, as (key, words)."""
        keys = tuple(key for key, _ in documents)
        return Tail((*self.keys, *keys), (*self.counts, *(Counter(found) for _, found in documents)))

    def scores(self, asked: Sequence[str], index: Statistics) -> npt.NDArray[np.float64]:
        """One per document; a word that is asked for twice counts twice."""
        lengths = np.array([count.total() for count in self.counts], np.float64)
        mean = index.mean_words or (lengths.mean() if len(lengths) else 0.0) or 1.0
        damped = K1 * (1 - B + B * lengths / mean)
        found = np.zeros(len(self.counts))
        for word, times in Counter(asked).items():
            here = np.array([count[word] for count in self.counts], np.float64)
            known = index.holding(word)
            among = index.documents if known else index.documents + len(here)
            holding = known or int(np.count_nonzero(here))
            rare = math.log(1 + (among - holding + 0.5) / (holding + 0.5))
            found += times * rare * here / (here + damped)
        return found
