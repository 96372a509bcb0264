"""Columns of a table as whole numbers, and orders of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def integers(column: pa.ChunkedArray) -> Ints:
    return np.asarray(column).astype(np.int64, copy=False)


def codes(column: pa.ChunkedArray) -> Ints:
    """Whole numbers from 0 for a column's values, in the order of first appearance where they are no dictionary yet."""
    encoded = column.unify_dictionaries() if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    return np.concatenate([np.empty(0, np.int64), *(np.asarray(chunk.indices) for chunk in encoded.chunks)])


def in_order(keys: Ints) -> Ints:
    """Places in the order of their ``keys``, whole numbers from 0 to 2**31, equal ones as they stand. Sorting pairs of key
    and place takes half the time of a stable sort of the keys."""
    return np.sort(keys << 32 | np.arange(len(keys))) & (2**32 - 1)


def place_within(group: Ints, order: Ints) -> Ints:
    """For each member, how many of its group stand before it in ``order``, which lists members group by group."""
    ordered = group[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else order
    sizes = np.diff(np.r_[starts, len(ordered)])
    place = np.empty(len(group), np.int64)
    place[order] = np.arange(len(group)) - np.repeat(starts, sizes)
    return place
