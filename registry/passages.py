"""Where a mail can be quoted: short runs of whole sentences, by their place in its text."""

from __future__ import annotations

import re
from collections.abc import Iterator

SENTENCES = 3
"""Sentences in a passage; each passage begins one sentence before the last one's end, so that neighbours share one."""

MOST_CHARACTERS = 600

_END = re.compile(r"[.!?…][\"'’”)\]]*(?=\s)|[。！？][」』”]*|\n(?=\s*\n)")
"""Where a sentence or a paragraph ends, closing marks included."""


def passages(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each passage of ``text``, in order; together they hold every word of it."""
    sentences = list(_sentences(text))
    first = 0
    while first < len(sentences):
        last = first
        while (
            last + 1 < len(sentences)
            and last + 1 - first < SENTENCES
            and sentences[last + 1][1] - sentences[first][0] <= MOST_CHARACTERS
        ):
            last += 1
        yield sentences[first][0], sentences[last][1]
        if last + 1 == len(sentences):
            return
        first = max(last, first + 1)


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    """Sentences and paragraphs without the white space around them; what is longer than a passage is cut at a space."""
    start = 0
    for end in _END.finditer(text):
        yield from _cut(text, start, end.end())
        start = end.end()
    yield from _cut(text, start, len(text))


def _cut(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    while start < end:
        while start < end and text[start].isspace():
            start += 1
        stop = end
        if end - start > MOST_CHARACTERS:
            spaces = [
                place for place in range(start + MOST_CHARACTERS // 2, start + MOST_CHARACTERS) if text[place].isspace()
            ]
            stop = spaces[-1] if spaces else start + MOST_CHARACTERS
        trimmed = stop
        while trimmed > start and text[trimmed - 1].isspace():
            trimmed -= 1
        if trimmed > start:
            yield start, trimmed
        start = stop
