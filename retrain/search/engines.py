"""What every search engine promises, and two of them asked as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from retrain.search.gold import Query

RRF_CONSTANT = 60
"""How little the first ranks stand out; 60 is the value of Cormack, Clarke and Büttcher (SIGIR 2009), not tuned here."""

FUSED_DEPTH = 100
"""How far down each ranking is read before they are fused."""


class Engine(Protocol):
    """Documents by key, each with the ordinal at which it arrived."""

    def search(self, query: str, k: int, *, before: int | None = None) -> list[tuple[str, float]]:
        """The best ``k`` documents with their scores, best first, among those with an ordinal below ``before``: the filter
        comes before the best are taken. Scores of different engines are not comparable."""
        ...


@dataclass(frozen=True, slots=True)
class Fused:
    """Several engines over the same documents, by reciprocal rank fusion: scores are not compared, only ranks."""

    engines: tuple[Engine, ...]

    def search(self, query: str, k: int, *, before: int | None = None) -> list[tuple[str, float]]:
        depth = max(k, FUSED_DEPTH)
        return fuse([[key for key, _ in engine.search(query, depth, before=before)] for engine in self.engines], k)


def fuse(rankings: Sequence[Sequence[str]], k: int) -> list[tuple[str, float]]:
    """The ``k`` best by the sum of ``1 / (60 + rank)`` over the rankings; equal sums go to the one met first, reading the
    first ranks of all rankings before the second ones."""
    scores: dict[str, float] = {}
    for place in range(max(map(len, rankings), default=0)):
        for ranking in rankings:
            if place < len(ranking):
                scores[ranking[place]] = scores.get(ranking[place], 0.0) + 1 / (RRF_CONSTANT + place + 1)
    return sorted(scores.items(), key=lambda found: -found[1])[:k]


def rank(engine: Engine, queries: Sequence[Query], depth: int) -> list[list[str]]:
    """What ``engine`` finds for each query, best first, at most ``depth``: candidates only, and never the query itself."""
    found = []
    for query in queries:
        keys = [key for key, _ in engine.search(query.text, depth + 1, before=query.before) if key != query.key]
        found.append(keys[:depth])
    return found
