"""How long to wait before a source that does not answer is asked again."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

FIRST_SECONDS = 1.0
MOST_SECONDS = 300.0


def delays(rng: Random | None = None) -> Iterator[float]:
    """Seconds to wait after the first failure, the second, and so on: uniform between nothing and a bound that doubles from
    one second to five minutes ("full jitter"), so that many readers of one server do not come back in step."""
    rng = rng or Random()
    bound = FIRST_SECONDS
    while True:
        yield rng.uniform(0.0, bound)
        bound = min(2 * bound, MOST_SECONDS)
