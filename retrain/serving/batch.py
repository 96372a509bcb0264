"""Answers of one adapter that are written side by side: one pass of the model gives each its next token.

Prompts of different lengths are padded on the left, as in transformers' ``generate``. What ``generate`` cannot do is let a
request in while others are being written: here it joins, its keys and values set beside theirs, and leaves when it is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad
from transformers.cache_utils import DynamicCache, DynamicLayer

from retrain.serving.asked import Finish, Job, Piece
from retrain.serving.choosing import Dice, choose
from retrain.serving.model import ServedModel
from retrain.serving.spelling import Spelling


@dataclass(slots=True)
class Row:
    """One answer under way. ``length`` counts its tokens that the model has read, ``last`` is the one it has not."""

    job: Job
    spelling: Spelling
    dice: Dice
    length: int
    last: int = 0


class Batch:
    """Rows with what the model has computed of them: keys and values [rows, heads, width, head size] per layer. A row of
    ``length`` n stands in the last n of ``width`` places."""

    def __init__(self, model: ServedModel, jobs: Sequence[Job]) -> None:
        """Nothing is computed yet."""
        self._model = model
        self._cache: Any = None
        self._width = 0
        self.rows = [
            Row(job, Spelling(model.speller, model.ends, job.sampling), Dice(job.sampling.seed), len(job.prompt))
            for job in jobs
        ]

    @property
    def adapter_id(self) -> str | None:
        """Whose answers these are."""
        return self.rows[0].job.adapter_id

    @property
    def joinable(self) -> bool:
        """Whether keys and values can be set beside others': not where a model keeps a window of them."""
        return all(type(layer) is DynamicLayer for layer in self._cache.layers)

    def read(self) -> list[tuple[Job, Piece]]:
        """Reads the prompts and gives each row its first token."""
        device = self._model.compute.device
        self._width = max(row.length for row in self.rows)
        padded = [[self._model.padding] * (self._width - row.length) + list(row.job.prompt) for row in self.rows]
        places = torch.stack([_places(row.length, self._width) for row in self.rows])
        self._cache = DynamicCache(config=self._model.use(self.adapter_id).config)
        return self._pass(torch.tensor(padded, device=device), places.to(device))

    def step(self) -> list[tuple[Job, Piece]]:
        """One more token for each row."""
        device = self._model.compute.device
        tokens = torch.tensor([[row.last] for row in self.rows], device=device)
        places = torch.tensor([[row.length] for row in self.rows], device=device)
        for row in self.rows:
            row.length += 1
        self._width += 1
        return self._pass(tokens, places)

    def join(self, other: Batch) -> None:
        """Takes the rows of another batch of the same adapter in; both must be ``joinable``."""
        width = max(self._width, other._width)
        for mine, theirs in zip(self._cache.layers, other._cache.layers, strict=True):
            mine.keys = torch.cat([_widened(mine.keys, width), _widened(theirs.keys, width)])
            mine.values = torch.cat([_widened(mine.values, width), _widened(theirs.values, width)])
        self._width = width
        self.rows += other.rows

    def drop(self, gone: set[Job]) -> None:
        """Lets go of the rows of these jobs, and of what only they needed."""
        kept = [place for place, row in enumerate(self.rows) if row.job not in gone]
        if len(kept) == len(self.rows):
            return
        self.rows = [self.rows[place] for place in kept]
        if not self.rows:
            self._cache = None
            return
        self._cache.batch_select_indices(torch.tensor(kept, device=self._model.compute.device))
        width = max(row.length for row in self.rows)
        if width < self._width and self.joinable:
            for layer in self._cache.layers:
                layer.keys = layer.keys[:, :, self._width - width :].contiguous()
                layer.values = layer.values[:, :, self._width - width :].contiguous()
            self._width = width

    def _pass(self, tokens: torch.Tensor, places: torch.Tensor) -> list[tuple[Job, Piece]]:
        network = self._model.use(self.adapter_id)
        output = network(
            input_ids=tokens,
            position_ids=places,
            attention_mask=self._mask(),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._cache = output.past_key_values
        chosen = choose(output.logits[:, -1], [(row.job.sampling, row.dice) for row in self.rows])
        return [(row.job, _piece(row, token)) for row, token in zip(self.rows, chosen, strict=True)]

    def _mask(self) -> torch.Tensor | None:
        """Which places hold tokens [rows, width]; None where all do."""
        if all(row.length == self._width for row in self.rows):
            return None
        lengths = torch.tensor([[row.length] for row in self.rows])
        mask = torch.arange(self._width)[None, :] >= self._width - lengths
        return mask.to(self._model.compute.device, torch.long)


def _piece(row: Row, token: int | None) -> Piece:
    if token is None:
        return row.spelling.cut(Finish.FAILED)
    row.last = token
    return row.spelling.take(token)


def _places(length: int, width: int) -> torch.Tensor:
    """0, 1, ... for the tokens at the end of a row of ``width``; padding has place 0."""
    return (torch.arange(width) - (width - length)).clamp(min=0)


def _widened(block: torch.Tensor, width: int) -> torch.Tensor:
    return pad(block, (0, 0, width - block.shape[2], 0))
