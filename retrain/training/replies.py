"""Chunks as examples of the objective ``reply``: the thread so far is read, the owner's new replies are foretold."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pipeline.chunking.chunks import message_slices, read_slice
from pipeline.sampling.objectives import reply_places
from retrain.training.batches import AS_WRITTEN, Example
from retrain.training.dialogues import Template

READ_SHARE = 4
"""Of a context that even one reply and the mail before it do not fit, at most one part in so many is kept for that mail."""


@dataclass(frozen=True, slots=True)
class Mail:
    """``text`` as it stands in the chunk, with author and date; ``words`` are what a reply of the owner says, empty for any
    other mail; ``new`` replies are foretold."""

    text: str
    words: str
    new: bool


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A chunk's thread up to the last reply that is foretold. ``subject`` is its first line."""

    chunk_id: str
    subject: str
    mails: tuple[Mail, ...]


@dataclass(frozen=True, slots=True)
class _Said:
    """A mail in tokens; ``offsets`` are where each token of ``words`` ends in the text of the reply, in characters."""

    mail: Mail
    text: list[int]
    words: list[int]
    ends: list[int]


def dialogue_of(row: Mapping[str, Any], text: str, owner: Collection[str]) -> Dialogue:
    """The thread of a chunk from its row of metadata (``chunk_id``, ``starts``, ``authors``, ``tiers``, ``n_context``)."""
    replies = set(reply_places(row["authors"], row["tiers"], owner))
    mails = []
    for place, part in enumerate(message_slices(text, row["starts"])):
        words = read_slice(part).words.strip() if place in replies else ""
        mails.append(Mail(part, words, bool(words) and place >= row["n_context"]))
    last = max((place for place, mail in enumerate(mails) if mail.new), default=-1)
    return Dialogue(row["chunk_id"], text[: row["starts"][0]], tuple(mails[: last + 1]))


class ReplyEncoder:
    """Writes threads in a chat template, in at most ``context`` tokens.

    Consecutive mails of one side are one turn; a mail of the owner's that nobody was answered with, as the first of a
    thread, is read like those of others. What exceeds the context is left out from the oldest mail on, replies among them.
    Where the last reply and the mail before it are too much, that mail loses its beginning, then the reply its end.
    """

    def __init__(self, tokenizer: Any, template: Template, context: int) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._context = context
        self._between = self._plain("\n\n")

    def encode(self, told: Sequence[Dialogue]) -> list[Example]:
        """One example for each, in their order; without a label where no reply has words."""
        return [self._example(one) for one in told]

    def _example(self, told: Dialogue) -> Example:
        if not told.mails:
            return Example(told.chunk_id, (), 0, 0)
        subject, said = self._plain(told.subject), [self._said(mail) for mail in told.mails]
        for first in range(len(said) - 1):
            example = self._written(told.chunk_id, subject, said[first:])
            if len(example.ids) <= self._context:
                return example
        return self._cut(told.chunk_id, subject, said[-2], said[-1])

    def _cut(self, chunk_id: str, subject: list[int], before: _Said, reply: _Said) -> Example:
        """The last reply and the mail before it, shortened to fit."""
        opening, between, end = self._template.pieces(2)
        read, answer = [*subject, *before.text], [*reply.words, *end.closing]
        room = self._context - len(opening.rest) - len(between.rest)
        answer = answer[: max(0, room - min(len(read), self._context // READ_SHARE))]
        kept = min(len(read), max(0, room - len(answer)))
        ids = [*opening.rest, *read[len(read) - kept :], *between.rest, *answer]
        spelled = reply.ends[min(len(answer), len(reply.words)) - 1] if answer else 0
        return _example(chunk_id, ids, [(len(ids) - len(answer), len(ids))], len(reply.mail.words[:spelled].encode()))

    def _written(self, chunk_id: str, subject: list[int], said: Sequence[_Said]) -> Example:
        turns = _turns(said)
        pieces = self._template.pieces(len(turns))
        ids = [*pieces[0].rest, *subject]
        spans: list[tuple[int, int]] = []
        for place, turn in enumerate(turns):
            for number, one in enumerate(turn):
                answers = place % 2 == 1
                ids += self._between if answers and number else ()
                start = len(ids)
                ids += one.words if answers else one.text
                ids += pieces[place + 1].closing if one is turn[-1] else ()
                if answers and one.mail.new:
                    spans.append((start, len(ids)))
            ids += pieces[place + 1].rest
        n_bytes = sum(len(one.mail.words.encode()) for turn in turns[1::2] for one in turn if one.mail.new)
        return _example(chunk_id, ids, spans, n_bytes)

    def _said(self, mail: Mail) -> _Said:
        words: list[int] = []
        ends: list[int] = []
        if mail.words:
            found = self._tokenizer(mail.words, return_offsets_mapping=True, **AS_WRITTEN)
            words, ends = list(found["input_ids"]), [end for _, end in found["offset_mapping"]]
        return _Said(mail, self._plain(mail.text), words, ends)

    def _plain(self, text: str) -> list[int]:
        return list(self._tokenizer(text, **AS_WRITTEN)["input_ids"])


def _turns(said: Sequence[_Said]) -> list[list[_Said]]:
    """Mails of one side after the other, those of others first: what stands first is read, whoever wrote it."""
    turns: list[list[_Said]] = []
    for place, one in enumerate(said):
        answers = bool(place and one.mail.words)
        if turns and answers == (len(turns) % 2 == 0):
            turns[-1].append(one)
        else:
            turns.append([one])
    return turns


def _example(chunk_id: str, ids: list[int], spans: Sequence[tuple[int, int]], n_bytes: int) -> Example:
    """``spans`` of ``ids`` are foretold; what stands after the last of them is left out, as nothing depends on it."""
    spans = [span for span in spans if span[0] < span[1]]
    if not spans:
        return Example(chunk_id, tuple(ids), len(ids), 0)
    gaps = [(one[1], other[0]) for one, other in pairwise(spans) if one[1] < other[0]]
    return Example(chunk_id, tuple(ids[: spans[-1][1]]), spans[0][0], n_bytes, tuple(gaps))
