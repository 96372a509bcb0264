"""The next token of every row, each by its own rules and its own dice."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from retrain.serving.asked import Sampling


class Dice:
    """Uniform numbers of one answer: the same seed gives the same, whatever else is in the batch."""

    def __init__(self, seed: int | None) -> None:
        self._generator = torch.Generator()
        self._generator.manual_seed(int.from_bytes(os.urandom(7)) if seed is None else seed)

    def throw(self) -> float:
        """At least 0 and below 1."""
        return float(torch.rand((), generator=self._generator, dtype=torch.float64))


def choose(logits: torch.Tensor, rows: Sequence[tuple[Sampling, Dice]]) -> list[int | None]:
    """A token per row of ``logits`` (rows x vocabulary); None where a row holds no number to choose by.

    Temperature divides the logits; then the likeliest tokens are kept whose probability before theirs is below ``top_p``
    (nucleus sampling, Holtzman et al. 2019), and one is drawn by the inverse of their distribution.
    """
    finite = torch.isfinite(logits).all(dim=-1).tolist()
    tokens: list[int | None] = logits.argmax(dim=-1).tolist()
    drawn = [place for place, (sampling, _) in enumerate(rows) if sampling.temperature > 0 and finite[place]]
    if drawn:
        for place, token in zip(drawn, _drawn(logits[drawn].float(), [rows[place] for place in drawn]), strict=True):
            tokens[place] = token
    return [token if fine else None for token, fine in zip(tokens, finite, strict=True)]


def _drawn(logits: torch.Tensor, rows: Sequence[tuple[Sampling, Dice]]) -> list[int]:
    heat = torch.tensor([[sampling.temperature] for sampling, _ in rows], device=logits.device)
    # Less the largest one first: divided by a temperature near 0, it would be no number any more.
    shares = torch.softmax((logits - logits.amax(dim=-1, keepdim=True)) / heat, dim=-1, dtype=torch.float64)
    shares, order = shares.sort(dim=-1, descending=True, stable=True)
    reached = shares.cumsum(dim=-1)
    top_p = torch.tensor([[sampling.top_p] for sampling, _ in rows], dtype=torch.float64, device=logits.device)
    kept = ((reached - shares) < top_p).sum(dim=-1, keepdim=True).clamp(min=1)
    thrown = torch.tensor([[dice.throw()] for _, dice in rows], dtype=torch.float64, device=logits.device)
    place = torch.searchsorted(reached, thrown * reached.gather(-1, kept - 1), right=True)
    return order.gather(-1, torch.minimum(place, kept - 1))[:, 0].tolist()
