"""What may choose a checkpoint, and how people write it: weights such as ``ppl:0.4,rag:0.6``, thresholds such as
``ppl<=40``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

PARTS = {
    "ppl": "perplexity of val mail",
    "rag": "loss of real replies given retrieved mail, nats per token",
    "accuracy": "ROUGE-L of written replies given retrieved mail",
    "recall": "recall@5 of the search",
}
"""What a checkpoint is judged by."""

GREATER_IS_BETTER = frozenset({"accuracy", "recall"})

_THRESHOLD = re.compile(r"\s*(\w+)\s*(<=|>=)\s*(\S+)\s*")


@dataclass(frozen=True, slots=True)
class Threshold:
    """A bound on one part: at most ``bound``, or at least it (``at_least``)."""

    part: str
    at_least: bool
    bound: float

    def kept_by(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{self.part}{'>=' if self.at_least else '<='}{self.bound:g}"


def parse_weights(text: str) -> dict[str, float]:
    """Weights by part, as shares of one. Raises ``ValueError`` that names what is wrong."""
    found: dict[str, float] = {}
    for piece in text.split(","):
        name, colon, weight = (one.strip() for one in piece.partition(":"))
        if not colon:
            raise ValueError(f"{piece.strip()!r} is not NAME:WEIGHT, as in ppl:0.4,rag:0.6")
        _known(name)
        if name in found:
            raise ValueError(f"{name} is weighed twice")
        found[name] = _number(weight)
        if found[name] < 0:
            raise ValueError(f"the weight of {name} is negative")
    total = sum(found.values())
    if total == 0:
        raise ValueError("all weights are 0, so nothing would choose")
    return {name: weight / total for name, weight in found.items()}


def parse_thresholds(text: str) -> tuple[Threshold, ...]:
    """Thresholds in the order written; none of an empty text. Raises ``ValueError`` that names what is wrong."""
    found = []
    for piece in text.split(",") if text.strip() else ():
        match = _THRESHOLD.fullmatch(piece)
        if match is None:
            raise ValueError(f"{piece.strip()!r} is not NAME<=NUMBER or NAME>=NUMBER, as in ppl<=40")
        _known(match[1])
        found.append(Threshold(match[1], match[2] == ">=", _number(match[3])))
    return tuple(found)


def _known(name: str) -> None:
    if name not in PARTS:
        raise ValueError(f"{name!r} chooses nothing: there are {', '.join(PARTS)}")


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value
