"""How the passes of a batch are shared out over the processes that train together.

Every process knows the whole batch and works out the same division, so nothing is sent to agree on it. A step has the same
chunks and the same loss whatever their number; only the order of its sums, and so its rounding, differs.
"""

from __future__ import annotations

from collections.abc import Sequence

from retrain.training.batches import Example, groups_of_like_length


def shares(examples: Sequence[Example], count: int) -> list[list[Example]]:
    """Deals ``examples`` to ``count`` processes: the longest first, each to the one that has the fewest tokens.

    The division depends on lengths and ids alone, not on the order given. Where there are fewer examples than processes,
    some get none.
    """
    dealt: list[list[Example]] = [[] for _ in range(count)]
    tokens = [0] * count
    for example in sorted(examples, key=lambda example: (-len(example.ids), example.chunk_id)):
        least = tokens.index(min(tokens))
        dealt[least].append(example)
        tokens[least] += len(example.ids)
    return dealt


def shared_passes(examples: Sequence[Example], count: int, most: int) -> list[list[list[Example]]]:
    """The passes of each process, of at most ``most`` tokens with padding: the same number for all, and at least one.

    The gradients of a step are exchanged in its last pass, which therefore all must make; a pass without examples is one
    that a process makes for the others' sake.
    """
    passes = [groups_of_like_length(share, most) for share in shares(examples, count)]
    longest = max(1, *(len(own) for own in passes))
    return [[*own, *([] for _ in range(longest - len(own)))] for own in passes]
