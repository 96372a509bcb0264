"""How much of each quality tier is trained on. :mod:`pipeline.chunking.quality` says what the tiers are."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from pipeline.config.groups import Share
from pipeline.domain import TierName

LEAST_WEIGHT, MOST_WEIGHT = 0.001, 1000.0


def _large_enough(weight: float) -> float:
    if 0 < weight < LEAST_WEIGHT:
        raise ValueError(f"a weight is 0 or at least {LEAST_WEIGHT:g}")
    return weight


Weight = Annotated[float, Field(ge=0.0, le=MOST_WEIGHT), AfterValidator(_large_enough)]
TierCaps = dict[TierName, Share]
TierWeights = dict[TierName, Weight]
