"""The quality tier of a chunk: six signals of its new text and its columns, and a class that follows from them. Pure.

The column ``tier`` of a shard is frozen when a window closes and says who sent the mail. A quality tier says more, and is
derived whenever it is asked for: the same chunk has the same one for ever, as a function of what is frozen, under one
:data:`QUALITY_VERSION`. Thresholds were set on public list archives (docs/training.md, "Quality tiers").
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pipeline.chunking.chunks import LEAD, message_slices
from pipeline.chunking.languages import language_of
from pipeline.copies.shingles import RUN, words_of
from pipeline.domain import Tier

QUALITY_VERSION = 1
"""Version of signals, thresholds and classes: what was scored by another is scored anew."""

COLUMNS = ("chunk_id", "message_keys", "starts", "parents", "n_context", "tier", "tiers")
"""Columns of a shard that signals are taken from, beside the text."""

MOSTLY = 0.5
"""Share of the new text from which programs, bulk mail, or quotation name a chunk."""

REPEATS, MIXES, PROSE = 0.4, 0.25, 0.25
"""From how much repetition a chunk is ``repetitive`` and from how much of other languages ``mixed``; with how little prose
it is ``material``."""


class Quality(StrEnum):
    """Quality tiers, in the order in which they are tried: a chunk is of the first that it fits.

    ``canary`` is no mail; ``auto`` mostly by programs; ``bulk`` mostly sent to many; ``quoted`` mostly others' words;
    ``repetitive`` says the same over and over; ``mixed`` changes language; ``material`` is hardly prose: patches, logs,
    tables; ``dialogue`` is mail that answers mail; ``person`` is the rest: one author writing unasked.
    """

    CANARY = "canary"
    AUTO = "auto"
    BULK = "bulk"
    QUOTED = "quoted"
    REPETITIVE = "repetitive"
    MIXED = "mixed"
    MATERIAL = "material"
    DIALOGUE = "dialogue"
    PERSON = "person"


@dataclass(frozen=True, slots=True)
class Signals:
    """What a chunk's new text is like; shares are of its characters, lead lines apart, between 0 and 1.

    ``own``: words of the mail's sender, not quotation. ``depth``: mails in the longest chain of answers that ends here, 1
    where nothing is answered; a parent that does not stand in the chunk counts, what that one answered does not. ``bulk``
    and ``auto``: in mail sent to many, or by programs. ``repetition``: of the runs of five words, those that stood in the
    chunk before. ``prose``: in paragraphs whose language can be told; ``language`` is that of most of them ("" without
    any), and ``mix`` the share of the prose in others.
    """

    own: float
    depth: int
    bulk: float
    auto: float
    repetition: float
    prose: float
    mix: float
    language: str


SHARES = ("own", "depth", "bulk", "auto", "repetition", "prose", "mix")
"""The signals that are numbers, in order."""


def signals_of(row: Mapping[str, Any], text: str) -> Signals:
    """The signals of a chunk, from its :data:`COLUMNS` and its text."""
    n_context, slices = row["n_context"], message_slices(text, row["starts"])
    tiers = row["tiers"] or [row["tier"]] * len(slices)
    words = [LEAD.sub("", part, count=1) for part in slices]
    size: Counter[str] = Counter()
    own = 0
    for said, tier in list(zip(words, tiers, strict=True))[n_context:]:
        size[tier] += len(said)
        own += 0 if tier == Tier.QUOTED else len(_unquoted(said))
    total = size.total() or 1
    prose, mix, language = _languages("\n\n".join(words[n_context:]))
    return Signals(
        own=own / total,
        depth=_depth(row["message_keys"], row["parents"], n_context),
        bulk=size[Tier.BULK] / total,
        auto=size[Tier.AUTO] / total,
        repetition=_repetition("\n".join(words[:n_context]), "\n".join(words[n_context:])),
        prose=prose,
        mix=mix,
        language=language,
    )


def quality_of(tier: str, signals: Signals) -> Quality:
    """The class of a chunk with these signals, whose frozen class is ``tier``."""
    fits = (
        (Quality.CANARY, tier == Tier.CANARY),
        (Quality.AUTO, signals.auto >= MOSTLY),
        (Quality.BULK, signals.bulk >= MOSTLY),
        (Quality.QUOTED, signals.own < MOSTLY),
        (Quality.REPETITIVE, signals.repetition >= REPEATS),
        (Quality.MIXED, signals.mix >= MIXES),
        (Quality.MATERIAL, signals.prose < PROSE),
        (Quality.DIALOGUE, signals.depth > 1),
    )
    return next((quality for quality, fit in fits if fit), Quality.PERSON)


_QUOTE = re.compile(r"^[ \t]*>.*\n?", re.MULTILINE)
_PARAGRAPH = re.compile(r"\n[ \t]*\n")


def _unquoted(text: str) -> str:
    return _QUOTE.sub("", text)


def _depth(keys: Sequence[str], parents: Sequence[str | None], n_context: int) -> int:
    """Chains are followed in the chunk's order, which is that of arrival: a mail that came before its parent begins one."""
    depth: dict[str, int] = {}
    for key, parent in zip(keys, parents, strict=True):
        depth[key] = max(depth.get(key, 1), 1 if parent is None else depth.get(parent, 1) + 1)
    return max((depth[key] for key in keys[n_context:]), default=1)


def _repetition(before: str, new: str) -> float:
    seen = set(_runs(before))
    repeated = count = 0
    for run in _runs(new):
        count += 1
        repeated += run in seen
        seen.add(run)
    return repeated / count if count else 0.0


def _runs(text: str) -> list[tuple[str, ...]]:
    words = words_of(text)
    return list(zip(*(words[at:] for at in range(RUN)), strict=False))


def _languages(text: str) -> tuple[float, float, str]:
    """The share of ``text`` that is prose, that of the prose in other languages than the main one, and that one."""
    told: Counter[str] = Counter()
    size = 0
    for paragraph in _PARAGRAPH.split(text):
        length = len("".join(paragraph.split()))
        size += length
        told[language_of(paragraph)] += length
    del told[""]
    if not told:
        return 0.0, 0.0, ""
    prose = told.total()
    language, most = told.most_common(1)[0]
    return prose / size, 1 - most / prose, language
