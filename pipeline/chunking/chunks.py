"""Threads cut into training examples. Pure: the same messages, settings and ruler give the same bytes.

A chunk reads::

    Subject: Re: lunch
    ⁂ Ann Example, 2024-05-01 10:00
    Shall we?
    ⁂ Bob Example, 2024-05-01 10:20
    Gladly.

The mark that leads a message's line stands nowhere else: in mail text it is replaced, so no mail can forge a line.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import accumulate

from pipeline.chunking.ruler import Ruler
from pipeline.config.settings import ChunkSettings
from pipeline.domain import Bucket, Chunk, StoredMessage, Tier

MARK = "⁂"
STAND_IN = "*"
LEAD = re.compile(rf"{MARK} (?P<author>.*), (?P<date>\d{{4}}-\d\d-\d\d \d\d:\d\d)\n")
CONTEXT_SHARE = 4
LABEL_SHARE = 8
"""A subject, or an author's name, takes at most one part in so many of a chunk's tokens; the rest of it is left out."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a message, or a piece of one, says in a chunk; ``at`` is UTC to the minute."""

    author: str
    at: datetime
    words: str


@dataclass(frozen=True, slots=True)
class _Piece:
    """A message ready to be written, or a piece of one that is too long."""

    message: StoredMessage
    subject: str
    lead: str
    words: str

    @property
    def text(self) -> str:
        return f"{self.lead}{self.words}\n"


def build_chunks(
    earlier: Sequence[StoredMessage],
    new: Sequence[StoredMessage],
    *,
    settings: ChunkSettings,
    ruler: Ruler,
    mask: Callable[[str], str],
) -> list[Chunk]:
    """The chunks of one thread for one window: ``new`` are all its messages of the window, ``earlier`` at least the newest
    ``settings.overlap`` before them. ``mask`` is applied to subjects, authors and words before anything is cut.

    The new parts of the chunks, one after the other, hold every word of every new message once and in order; each chunk
    fits ``settings.max_tokens``, lead lines and context included.
    """
    writer = _Writer(settings, ruler, mask)
    written = [writer.whole(message) for message in _in_order(earlier)]
    fresh = [writer.whole(message) for message in _in_order(new)]
    whole = {piece.message.message_key: piece for piece in fresh}
    chunks = []
    for ordinal, pieces in enumerate(writer.slices(fresh)):
        context = writer.context(written, pieces)
        written += [whole[piece.message.message_key] for piece in pieces]
        text = writer.write(context, pieces)
        everything = [piece.message for piece in (*context, *pieces)]
        starts = tuple(accumulate((len(piece.text) for piece in (*context, *pieces[:-1])), initial=len(pieces[0].subject)))
        n_tokens = ruler.count(text)
        first = new[0]
        chunks.append(
            Chunk(
                mailbox=first.mailbox,
                chunk_id=f"{first.thread_id}:w{first.window_idx}:{ordinal}",
                thread_id=first.thread_id,
                window_idx=first.window_idx,
                split=first.split,
                sender=_main_sender(pieces),
                message_keys=tuple(message.message_key for message in everything),
                starts=starts,
                ordinals=tuple(message.arrival_ordinal for message in everything),
                parents=tuple(message.parent_key for message in everything),
                n_context=len(context),
                n_messages=len(pieces),
                n_tokens=n_tokens,
                bucket=bucket_of(n_tokens),
                tier=_tier(pieces),
                new_from=starts[len(context)],
                sha256=hashlib.sha256(text.encode()).hexdigest(),
                text=text,
                authors=tuple(message.sender_key for message in everything),
                tiers=tuple(_tier_of(message) for message in everything),
            )
        )
    return chunks


def message_slices(text: str, starts: Sequence[int]) -> list[str]:
    """The messages of a chunk, each from its lead line on."""
    ends = (*starts[1:], len(text)) if starts else ()
    return [text[start:end] for start, end in zip(starts, ends, strict=True)]


def read_slice(text: str) -> Spoken:
    """Reads one of :func:`message_slices` back; raises ``ValueError`` for text without a lead line."""
    lead = LEAD.match(text)
    if lead is None:
        raise ValueError(f"no lead line in {text[:40]!r}")
    return Spoken(lead["author"], datetime.fromisoformat(lead["date"]), text[lead.end() : -1])


def bucket_of(n_tokens: int) -> Bucket:
    """The length class of so many tokens by the store's ruler."""
    for bound, bucket in ((512, Bucket.SHORT), (1024, Bucket.MEDIUM), (2048, Bucket.LONG)):
        if n_tokens < bound:
            return bucket
    return Bucket.VERYLONG


class _Writer:
    """Writes pieces as text and knows what fits. Text is always counted whole: tokens of parts need not add up."""

    def __init__(self, settings: ChunkSettings, ruler: Ruler, mask: Callable[[str], str]) -> None:
        self._settings = settings
        self._ruler = ruler
        self._mask = mask

    def whole(self, message: StoredMessage) -> _Piece:
        subject = self._label(self._mask(message.subject))
        author = self._label(self._mask(message.sender_name or message.sender_address or "unknown"))
        date = (message.date or message.received_at).isoformat(sep=" ", timespec="minutes")
        own = message.own_text if message.own_text.strip() else message.text
        return _Piece(
            message=message,
            subject=f"Subject: {subject}".rstrip() + "\n",
            lead=f"{MARK} {author}, {date}\n",
            words=self._mask(own).replace(MARK, STAND_IN).strip("\n"),
        )

    def write(self, context: Sequence[_Piece], pieces: Sequence[_Piece]) -> str:
        return "".join((pieces[0].subject, *(piece.text for piece in (*context, *pieces))))

    def slices(self, fresh: Sequence[_Piece]) -> Iterator[list[_Piece]]:
        """Fills each slice as far as messages fit whole; one that is longer than a slice of its own is cut."""
        current: list[_Piece] = []
        for piece in fresh:
            if current and len(current) < self._settings.size and self._fits((), [*current, piece]):
                current.append(piece)
                continue
            if current:
                yield current
            *full, last = self._cut(piece)
            yield from ([one] for one in full)
            current = [last]
        if current:
            yield current

    def context(self, written: Sequence[_Piece], pieces: Sequence[_Piece]) -> list[_Piece]:
        """The newest messages already written that fit before ``pieces``, whole and without a gap.

        So nothing stands before the continuation of a message: the message itself would have to, and is too long.
        """
        chosen: list[_Piece] = []
        for piece in written[: -self._settings.overlap - 1 : -1]:
            wider = [piece, *chosen]
            share = self._ruler.count("".join(one.text for one in wider))
            if share > self._settings.max_tokens // CONTEXT_SHARE or not self._fits(wider, pieces):
                break
            chosen = wider
        return chosen

    def _fits(self, context: Sequence[_Piece], pieces: Sequence[_Piece]) -> bool:
        return self._ruler.count(self.write(context, pieces)) <= self._settings.max_tokens

    def _cut(self, piece: _Piece) -> list[_Piece]:
        """Consecutive pieces that each fit alone, ended at a line or a word where one ends in their second half."""
        cut: list[_Piece] = []
        while True:
            words = piece.words

            def fits(n: int, piece: _Piece = piece) -> bool:
                return self._fits((), [replace(piece, words=piece.words[:n])])

            end = max(1, _longest(len(words), self._settings.max_tokens, fits))
            if end >= len(words):
                return [*cut, piece]
            for softer in (words.rfind("\n", end // 2, end) + 1, words.rfind(" ", end // 2, end) + 1):
                if softer and fits(softer):
                    end = softer
                    break
            cut.append(replace(piece, words=words[:end]))
            piece = replace(piece, words=words[end:])

    def _label(self, text: str) -> str:
        """One line, cut to its share of the tokens."""
        line = " ".join(text.replace(MARK, STAND_IN).split())
        most = self._settings.max_tokens // LABEL_SHARE
        return line[: _longest(len(line), most, lambda n: self._ruler.count(line[:n]) <= most)]


def _longest(size: int, start: int, fits: Callable[[int], bool]) -> int:
    """The largest length up to ``size`` that fits, where longer texts fit less; doubles from ``start``, then halves."""
    low, high = 0, min(start, size)
    while fits(high):
        if high == size:
            return size
        low, high = high, min(2 * high, size)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _in_order(messages: Sequence[StoredMessage]) -> list[StoredMessage]:
    return sorted(messages, key=lambda message: message.arrival_ordinal)


def _main_sender(pieces: Sequence[_Piece]) -> str:
    """Who wrote most of the new text, in characters; the first of equals."""
    volume: Counter[str] = Counter()
    for piece in pieces:
        volume[piece.message.sender_key] += len(piece.words)
    return max(volume, key=lambda sender: volume[sender])


def _tier(pieces: Sequence[_Piece]) -> Tier:
    """The class of most of the new text, in characters; of equals the one that stands first in ``Tier``."""
    volume = dict.fromkeys(Tier, 0)
    for piece in pieces:
        volume[_tier_of(piece.message)] += len(piece.text)
    return max(volume, key=lambda tier: volume[tier])


def _tier_of(message: StoredMessage) -> Tier:
    if not message.own_text.strip():
        return Tier.QUOTED
    if message.auto:
        return Tier.AUTO
    return Tier.BULK if message.bulk else Tier.PERSON
