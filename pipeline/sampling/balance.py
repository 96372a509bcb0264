"""What caps of quality tiers leave of an order of chunks, and where they put it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.sampling.columns import Ints


def balanced(tokens: Ints, tier: Ints, shares: Sequence[tuple[int, int] | None]) -> Ints:
    """Places of the chunks that stay, in their new order.

    ``tokens`` and ``tier`` of the chunks, (chunks,) each; ``shares`` by tier: ``part`` tokens of it at most beside ``rest``
    tokens of the tiers without a cap, None where it has none. A chunk of a tier with a cap waits until enough tokens of
    the tiers without one stand before it, and is left out where they never do; so the cap holds at every place of the
    order. Without mail of other tiers there is nothing to protect.
    """
    capped = np.array([share is not None for share in shares], bool)[tier]
    others = np.cumsum(np.where(capped, 0, tokens))
    if not len(others) or not others[-1]:
        return np.arange(len(tokens))
    after_others = others[~capped]
    stands, stays = others.copy(), ~capped
    for number, share in enumerate(shares):
        if share is not None:
            part, rest = share
            mine = np.flatnonzero(tier == number)
            needed = (np.cumsum(tokens[mine]) * rest + part - 1) // part
            at = np.searchsorted(after_others, np.maximum(others[mine], needed))
            fits = at < len(after_others)
            stands[mine[fits]] = after_others[at[fits]]
            stays[mine[fits]] = True
    order = np.lexsort((capped, stands))
    kept: Ints = order[stays[order]]
    return kept
