"""What a model goes on with, as text. Greedy, so that a repeat is the same."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import StoppingCriteriaList

from pipeline.chunking.chunks import MARK
from retrain.models.model import Compute

AT_ONCE = 8
"""Texts written at once."""


@dataclass(frozen=True, slots=True)
class Timed:
    """One answer: its token ids, and the seconds until the first of them and until the last."""

    ids: tuple[int, ...]
    first_token: float
    answer: float


class Pen:
    """Writes with a model as it stands, whatever adapter it serves as; at most ``tokens`` a text."""

    def __init__(self, model: Any, compute: Compute, pad: int, tokenizer: Any, tokens: int) -> None:
        self._model = model
        self._compute = compute
        self._pad = pad
        self._tokenizer = tokenizer
        self.tokens = tokens

    def texts(self, prompts: Sequence[tuple[int, ...]]) -> list[str]:
        """What the model goes on with after each prompt."""
        some = [prompts[place : place + AT_ONCE] for place in range(0, len(prompts), AT_ONCE)]
        return [self.text(ids) for batch in some for ids in self._generate(batch)]

    def time(self, prompt: tuple[int, ...]) -> Timed:
        """One answer, alone and timed."""
        stamps: list[float] = []
        started = time.perf_counter()

        def stamp(ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
            stamps.append(time.perf_counter())
            return torch.zeros(ids.shape[0], dtype=torch.bool, device=ids.device)

        ids = self._generate([prompt], StoppingCriteriaList([stamp]))[0]
        return Timed(ids, stamps[0] - started, time.perf_counter() - started)

    def text(self, ids: Sequence[int]) -> str:
        """What was written up to where the model goes on with a mail of somebody else."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True)).partition(MARK)[0].strip()

    def _generate(
        self, prompts: Sequence[tuple[int, ...]], stamps: StoppingCriteriaList | None = None
    ) -> list[tuple[int, ...]]:
        """What the model goes on with after each prompt, all at once, padded on the left: a small model spends its time on
        reading weights, not on how many rows it multiplies them with."""
        model, compute = self._model, self._compute
        length = max(map(len, prompts))
        given = torch.tensor([[self._pad] * (length - len(prompt)) + list(prompt) for prompt in prompts])
        mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        was_training = model.training
        model.eval()
        try:
            with compute.lanes(1), torch.inference_mode(), compute.precision():
                out = model.generate(
                    input_ids=given.to(compute.device),
                    attention_mask=mask.to(compute.device),
                    max_new_tokens=self.tokens,
                    do_sample=False,
                    use_cache=True,
                    pad_token_id=self._pad,
                    stopping_criteria=stamps,
                )
        finally:
            model.train(was_training)
        return [tuple(row) for row in out[:, length:].tolist()]
