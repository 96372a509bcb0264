"""Which earlier chunks an epoch rehearses: a quota in tokens, shared among senders and their threads."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from pipeline.config.settings import ReplaySettings
from pipeline.sampling.columns import Ints, place_within


@dataclass(frozen=True, slots=True)
class Pool:
    """The chunks that may be rehearsed, in the order of the manifest's rank: tokens, and codes of the sender and of the
    stratum (sender and thread), counted from 0 in the order of first appearance. All of shape (chunks,)."""

    tokens: Ints
    sender: Ints
    stratum: Ints


def quota(new_tokens: int, replay: ReplaySettings) -> int:
    """Rehearsal tokens of an epoch at most: ``ratio`` per new token, and never above ``max_share`` of the whole.

    Computed on the decimal numbers that the settings spell, so that rounding cannot break the bound.
    """
    if replay.strategy == "none":
        return 0
    share = Fraction(str(replay.max_share))
    ratio = Fraction(str(replay.ratio))
    if share < 1:
        ratio = min(ratio, share / (1 - share))
    return int(ratio * new_tokens)


def draw(pool: Pool, drawn: Ints, room: int, replay: ReplaySettings) -> Ints:
    """Places in ``pool`` that an epoch rehearses, each once, of ``room`` tokens together at most.

    ``drawn`` counts how often earlier epochs of this run took each chunk: those taken less come first, then the manifest's
    rank, so epochs go on where the last stopped and no chunk comes again before its stratum is exhausted. A chunk longer
    than the room that is left is passed over.

    ``stratified``: in phase 1 strata take turns, up to ``min_per_stratum`` each; in phase 2 the room that is left is
    apportioned by largest remainder to senders by their tokens, then to each sender's threads by theirs. ``windows`` and
    ``uniform``: in the manifest's order, whoever sent them.
    """
    places = np.arange(len(pool.tokens))
    if replay.strategy in ("windows", "uniform"):
        return _fitting(np.lexsort((places, drawn)), pool.tokens, room)
    turn = place_within(pool.stratum, np.lexsort((places, drawn, pool.stratum)))
    in_turns = np.lexsort((places, drawn, turn))
    taken = _fitting(in_turns[turn[in_turns] < replay.min_per_stratum], pool.tokens, room)
    while True:
        room_left = room - int(pool.tokens[taken].sum())
        more = _by_volume(pool, drawn, taken, room_left)
        if not len(more):
            return taken
        taken = np.concatenate([taken, more])


def apportion(seats: Ints, group: Ints, volume: Ints, most: Ints) -> Ints:
    """Deals each group's ``seats`` to its members by largest remainder, in proportion to ``volume``, ``most`` at most.

    ``seats`` is of shape (groups,), the others of shape (members,), ``group`` holding each member's group and ``volume``
    being positive. What a full member cannot take is dealt again among the others. Equal remainders go to the member that
    stands first. Whole numbers throughout: the same on every machine. Method: Hare quota, A. Hamilton 1792.
    """
    given = np.zeros(len(group), np.int64)
    while True:
        left = seats - _sums(group, given, len(seats))
        active = (given < most) & (left[group] > 0)
        if not active.any():
            return given
        total = _sums(group[active], volume[active], len(seats))[group[active]]
        exact = left[group[active]] * volume[active]
        whole, remainder = exact // total, exact % total
        over = left - _sums(group[active], whole, len(seats))
        members = np.arange(len(whole))
        by_remainder = np.lexsort((members, -remainder, group[active]))
        whole += place_within(group[active], by_remainder) < over[group[active]]
        given[active] = np.minimum(given[active] + whole, most[active])


def _by_volume(pool: Pool, drawn: Ints, taken: Ints, room: int) -> Ints:
    """One round of phase 2: as many chunks as fit on average, dealt to senders, then to their threads."""
    free = np.ones(len(pool.tokens), bool)
    free[taken] = False
    left = np.flatnonzero(free)
    if not len(left) or room < pool.tokens[left].min():
        return left[:0]
    seats = max(1, room * len(left) // int(pool.tokens[left].sum()))
    n_senders, n_strata = int(pool.sender.max()) + 1, int(pool.stratum.max()) + 1
    sender_of = np.zeros(n_strata, np.int64)
    sender_of[pool.stratum] = pool.sender
    everyone = np.zeros(n_senders, np.int64)
    of_sender = apportion(
        np.array([seats]),
        everyone,
        _sums(pool.sender, pool.tokens, n_senders),
        np.bincount(pool.sender[left], minlength=n_senders),
    )
    of_stratum = apportion(
        of_sender,
        sender_of,
        _sums(pool.stratum, pool.tokens, n_strata),
        np.bincount(pool.stratum[left], minlength=n_strata),
    )
    turn = place_within(pool.stratum[left], np.lexsort((left, drawn[left], pool.stratum[left])))
    chosen = left[turn < of_stratum[pool.stratum[left]]]
    return _fitting(chosen[np.lexsort((chosen, drawn[chosen]))], pool.tokens, room)


def _fitting(order: Ints, tokens: Ints, room: int) -> Ints:
    """The members of ``order`` that fit, first come, first served."""
    taken = []
    lengths = tokens[order]
    shortest = int(lengths.min(initial=room + 1))
    for place, length in zip(order.tolist(), lengths.tolist(), strict=True):
        if room < shortest:
            break
        if length <= room:
            taken.append(place)
            room -= length
    return np.array(taken, np.int64)


def _sums(group: Ints, values: Ints, groups: int) -> Ints:
    """Sums of ``values`` per group; exact, as token counts stay far below 2**53."""
    return np.bincount(group, weights=values, minlength=groups).astype(np.int64)
