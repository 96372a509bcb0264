"""Which of very many texts may be alike, without comparing them all: MinHash signatures, and bands of them.

A signature holds, for each of :data:`PERMUTATIONS` orders of all runs of words, the first run of the text; two texts agree
in a share of places that estimates their Jaccard index, with a standard error of 0.04 at 0.7 (Broder 1997). Signatures
that agree in all places of one of :data:`BANDS` bands are candidates: at a Jaccard index of 0.7 all but 2 in 10,000 pairs
are, at 0.1 three in a thousand (Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", chapter 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.copies.shingles import RUN, runs, words_of

PERMUTATIONS, BANDS = 128, 32
BAND = PERMUTATIONS // BANDS
SEED = 20_261
LIKELY = 0.45
"""Share of agreeing places from which a candidate is read and compared: three standard errors below the least near copy."""
PARTNERS = 3
"""Candidates of one text per band at most: of a hundred copies of one circular the first few tell."""

Signatures = npt.NDArray[np.uint16]
Bands = npt.NDArray[np.uint32]


def signatures(texts: Sequence[str]) -> Signatures:
    """One row of :data:`PERMUTATIONS` per text: the low 16 bits of each minimum, by which two different ones agree once in
    65,536 times."""
    from rensa import RMinHash  # type: ignore[import-untyped]

    if not texts:
        return np.zeros((0, PERMUTATIONS), np.uint16)
    sets = [sorted(runs(words_of(text), RUN)) for text in texts]
    digests = RMinHash.digests_from_token_sets(sets, num_perm=PERMUTATIONS, seed=SEED)
    return (np.asarray(digests, np.uint32) & 0xFFFF).astype(np.uint16)


def algorithm() -> str:
    """Names what signatures depend on besides the text: those of another algorithm cannot be compared."""
    from rensa import RMinHash

    return f"rensa {RMinHash.ALGORITHM_VERSION}, {PERMUTATIONS} of {RUN} words, seed {SEED}"


def bands_of(found: Signatures) -> Bands:
    """One row per band: a number per text that is the same where all places of the band are."""
    bands = np.zeros((BANDS, len(found)), np.uint32)
    for band, keys in enumerate(bands):  # one at a time: all at once would take six times the memory
        for place in range(band * BAND, (band + 1) * BAND):
            keys *= np.uint32(0x9E3779B1)
            keys ^= found[:, place] + np.uint32(0x7F4A7C15)
            keys ^= keys >> np.uint32(15)
    return bands


def candidates(held: Bands, others: Bands) -> npt.NDArray[Any]:
    """Pairs (place in ``held``, place in ``others``) that agree in a band, each once, in order."""
    found = [pair for band in range(BANDS) for pair in _in_band(held[band], others[band])]
    return np.unique(np.concatenate(found), axis=0) if found else np.zeros((0, 2), np.int64)


def agreement(ours: Signatures, theirs: Signatures) -> npt.NDArray[np.float64]:
    """The share of places in which two signatures agree, row by row."""
    return np.asarray((ours == theirs).mean(axis=1), np.float64)


def _in_band(held: npt.NDArray[np.uint32], others: npt.NDArray[np.uint32]) -> Iterator[npt.NDArray[Any]]:
    """Pairs of equal keys. The longer list first goes through a table of the low bits of the shorter one's keys, which few
    of its entries pass, so that an archive of any size costs one look at each of its keys."""
    rows, queries = _passing(others, held), _passing(held, others)
    if not len(rows) or not len(queries):
        return
    rows = rows[np.argsort(others[rows], kind="stable")]
    keys = others[rows]
    first = np.searchsorted(keys, held[queries])
    for partner in range(PARTNERS):
        place = np.minimum(first + partner, len(rows) - 1)
        equal = (keys[place] == held[queries]) & (first + partner < len(rows))
        if equal.any():
            yield np.stack([queries[equal], rows[place[equal]]], axis=1)


def _passing(keys: npt.NDArray[np.uint32], wanted: npt.NDArray[np.uint32]) -> npt.NDArray[np.intp]:
    if len(keys) <= len(wanted):
        return np.arange(len(keys))
    bits = 16 if len(wanted) < 1_000 else 20
    low = np.uint32((1 << bits) - 1)
    table = np.zeros(1 << bits, np.bool_)
    table[wanted & low] = True
    return np.flatnonzero(table[keys & low])
