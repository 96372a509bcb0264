"""From texts to tensors: cut to the model's context, new text first, and grouped so that little is padding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

IGNORED = -100
"""Label of a position whose next token is not counted."""

ENCODED_AT_ONCE = 256

AS_WRITTEN = {"add_special_tokens": False, "split_special_tokens": True}
"""A mail that spells out a control token says those characters; it controls nothing."""


@dataclass(frozen=True, slots=True)
class Example:
    """A chunk as the model sees it. ``ids`` begin with the start token where the model has one; the tokens from
    ``label_from`` on are predicted but for the ranges (from, to) of ``unlabelled``, those before are only read. ``n_bytes``
    is the text that the predicted tokens spell, in UTF-8."""

    chunk_id: str
    ids: tuple[int, ...]
    label_from: int
    n_bytes: int
    unlabelled: tuple[tuple[int, int], ...] = ()

    @property
    def n_labels(self) -> int:
        return len(self.ids) - self.label_from - sum(end - start for start, end in self.unlabelled)


IDLE = (Example("", (0, 0), 1, 0),)
"""What a process passes through the model for the others' sake; it counts for nothing."""


@dataclass(frozen=True, slots=True)
class Source:
    """A chunk's text and the character offset from which it is new."""

    chunk_id: str
    text: str
    new_from: int


@dataclass(frozen=True, slots=True)
class Batch:
    """The examples between two backward passes, as the schedule orders them, and the epoch they stand in."""

    epoch: int
    examples: tuple[Example, ...]

    @property
    def n_labels(self) -> int:
        return sum(example.n_labels for example in self.examples)

    @property
    def longest(self) -> int:
        return max((len(example.ids) for example in self.examples), default=0)

    @property
    def padded(self) -> int:
        """Tokens of one tensor that holds them all."""
        return self.longest * len(self.examples)


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one tensor: ``ids`` (rows, length), padded on the right. ``columns`` are the places along the length from
    which some row predicts, in order; ``labels`` (rows, columns) are the tokens after these, or :data:`IGNORED`."""

    ids: torch.Tensor
    columns: torch.Tensor
    labels: torch.Tensor

    def pinned(self) -> Group:
        """In memory that a GPU can fetch from while the processor does something else."""
        return Group(self.ids.pin_memory(), self.columns.pin_memory(), self.labels.pin_memory())

    def on(self, device: torch.device) -> Group:
        """On ``device``; what is pinned is fetched by it in the order of its work, and nobody waits."""
        return Group(*(each.to(device, non_blocking=True) for each in (self.ids, self.columns, self.labels)))


def encode(tokenizer: Any, sources: Iterable[Source], context: int) -> list[Example]:
    """Tokenises chunks and cuts each to ``context`` tokens.

    The text before and after ``new_from`` is tokenised apart, so that the border between read and predicted text falls
    between tokens. New text comes first: it fills the context from its beginning; what room is left goes to the newest
    end of the text before it. A chunk without a start token has nothing to predict its first token from, which is then
    only read.
    """
    start = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
    pending = list(sources)
    examples = []
    for first in range(0, len(pending), ENCODED_AT_ONCE):
        some = pending[first : first + ENCODED_AT_ONCE]
        before = tokenizer([source.text[: source.new_from] for source in some], **AS_WRITTEN)["input_ids"]
        new = tokenizer([source.text[source.new_from :] for source in some], return_offsets_mapping=True, **AS_WRITTEN)
        for source, old_ids, new_ids, offsets in zip(some, before, new["input_ids"], new["offset_mapping"], strict=True):
            examples.append(_cut(source, start, old_ids, new_ids, offsets, context))
    return examples


def _cut(
    source: Source, start: list[int], old: list[int], new: list[int], offsets: list[tuple[int, int]], context: int
) -> Example:
    room = context - len(start)
    kept = new[:room]
    read = old[len(old) - min(len(old), room - len(kept)) :]
    label_from = max(1, len(start) + len(read))
    unpredicted = label_from - len(start) - len(read)  # 1 where there is nothing before the first token
    scored = offsets[unpredicted : len(kept)]
    text = source.text[source.new_from :]
    n_bytes = len(text[scored[0][0] : scored[-1][1]].encode()) if scored else 0
    return Example(source.chunk_id, (*start, *read, *kept), label_from, n_bytes)


def groups_of_like_length(examples: Sequence[Example], max_tokens: int) -> list[list[Example]]:
    """Splits examples into groups of at most ``max_tokens`` with padding, longest first; one too long stands alone.

    The order depends on lengths and ids alone, not on the order given.
    """
    groups: list[list[Example]] = []
    for example in sorted(examples, key=lambda example: (-len(example.ids), example.chunk_id)):
        if groups and len(groups[-1][0].ids) * (len(groups[-1]) + 1) <= max_tokens:
            groups[-1].append(example)
        else:
            groups.append([example])
    return groups


def collate(examples: Sequence[Example], pad: int) -> Group:
    """One tensor of rows, in the machine's memory: which columns predict is told here, as a GPU would have to end its work
    to say so. Padding stands on the right, where a causal model never looks back from: no mask is needed."""
    length = max(len(example.ids) for example in examples)
    ids = torch.full((len(examples), length), pad, dtype=torch.long)
    labels = torch.full((len(examples), length), IGNORED, dtype=torch.long)
    for row, example in enumerate(examples):
        tokens = torch.tensor(example.ids, dtype=torch.long)
        ids[row, : len(tokens)] = tokens
        labels[row, example.label_from - 1 : len(tokens) - 1] = tokens[example.label_from :]
        for start, end in example.unlabelled:
            labels[row, start - 1 : end - 1] = IGNORED
    columns = (labels != IGNORED).any(dim=0).nonzero().squeeze(1)
    return Group(ids, columns, labels[:, columns])


def batches_of(plan: Iterable[tuple[int, Sequence[str]]], examples: Mapping[str, Example]) -> list[Batch]:
    """The schedule's batches (epoch, chunk ids) as examples, one for one, so that a step number means the same in both.
    Chunks without a token to predict are left out of theirs."""
    return [
        Batch(epoch, tuple(examples[chunk_id] for chunk_id in chunk_ids if examples[chunk_id].n_labels > 0))
        for epoch, chunk_ids in plan
    ]
