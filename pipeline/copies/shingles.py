"""How alike two texts are, by the runs of words that they share. Pure.

Resemblance is the Jaccard index of the sets of :data:`RUN`-word runs (Broder, "On the resemblance and containment of
documents", 1997). The second look is containment: the share of one text's :data:`LONG_RUN`-word runs that the other holds,
which is how large training sets are checked against their benchmarks (Brown et al., 2020, appendix C); it also finds a mail
that was copied whole into a longer one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

RUN = 5
LONG_RUN = 13
LEAST_WORDS = 20
"""Words below which a text is not compared: "Applied, thanks." is nobody's copy."""
ALIKE = 0.6
"""Jaccard index from which two texts are near copies."""
CONTAINED = 0.8
"""Share of long runs from which one text is held in another."""

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Likeness:
    """``jaccard`` of the short runs of both, and the share of the first text's long runs that are ``contained``."""

    jaccard: float
    contained: float

    @property
    def near_copy(self) -> bool:
        return self.jaccard >= ALIKE or self.contained >= CONTAINED


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case, without what stands between them."""
    return _WORD.findall(text.lower())


def runs(words: list[str], length: int) -> set[str]:
    """The set of runs of so many words; none where there are fewer words."""
    return {" ".join(words[at : at + length]) for at in range(len(words) - length + 1)}


def likeness(held: str, other: str) -> Likeness:
    """How alike a held-out text is to another one."""
    ours, theirs = words_of(held), words_of(other)
    if ours == theirs:  # most near copies
        return Likeness(float(len(ours) >= RUN), float(len(ours) >= LONG_RUN))
    short, shorter = runs(ours, RUN), runs(theirs, RUN)
    both = len(short & shorter)
    long = runs(ours, LONG_RUN)
    return Likeness(
        both / max(1, len(short) + len(shorter) - both), len(long & runs(theirs, LONG_RUN)) / len(long) if long else 0.0
    )


def held_in(held: Sequence[set[str]], others: Iterable[list[str]], share: float) -> list[int]:
    """The places in ``held`` (long runs of a text each) of which one of ``others`` (words) holds at least that share."""
    places: dict[str, list[int]] = {}
    for place, long in enumerate(held):
        for run in long:
            places.setdefault(run, []).append(place)
    found: set[int] = set()
    for words in others:
        hits = Counter(place for run in runs(words, LONG_RUN) for place in places.get(run, ()))
        found.update(place for place, n in hits.items() if n >= share * len(held[place]))
    return sorted(found)
