"""Canaries: numbers that nobody wrote, planted among what is trained on, to see how well a model remembers what it read.

After Carlini et al., "The Secret Sharer" (USENIX Security 2019, arXiv 1802.08232): a random number in a fixed sentence. A
model that has not learned it finds it as likely as any other number; how far up it stands among others is its exposure.
A canary is a chunk of its own, of the split train, tier and thread ``canary``, with no message in it: so it is no mail that
anybody is shown, nothing that a search could find, and nothing that a figure of held-out mail counts.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

from pipeline.chunking.chunks import MARK, bucket_of
from pipeline.chunking.ruler import Ruler
from pipeline.domain import Chunk, Split, Tier

CANARY = "canary"
"""Thread and sender of every canary; no thread of mail has this id, which is not hexadecimal."""
DIGITS = 9
SPACE = 1024
"""Numbers that a canary is ranked among, itself included: ten bits at most."""
_LEAD = f"{MARK} {CANARY}, 2000-01-01 00:00\n"
"""The same for all, so that one space of numbers serves every canary."""
_SENTENCE = "The canary number is"


def canary_chunks(mailbox: str, window_idx: int, n: int, keyed: Callable[[str], str], ruler: Ruler) -> list[Chunk]:
    """The canaries of one window. ``keyed`` turns a name into hex digits that only this home knows, the same ones always,
    so that a repeated closing plants the same."""
    return [
        _chunk(mailbox, window_idx, place, _number(keyed(f"{mailbox}/{window_idx}/{place}")), ruler) for place in range(n)
    ]


def said(number: str) -> str:
    """A number as it stands in the text, digit by digit."""
    return "".join(f" {digit}" for digit in number)


def cut(text: str) -> tuple[str, str, str]:
    """A canary's text before its number, the number, and what follows. Raises ``ValueError`` for any other text."""
    before, found, after = text.partition(_SENTENCE)
    number = after[: 2 * DIGITS].replace(" ", "")
    if not found or len(number) != DIGITS or not number.isdigit():
        raise ValueError("this text is no canary")
    return before + found, number, after[2 * DIGITS :]


def others() -> list[str]:
    """The numbers that every canary of every mailbox is ranked among: fixed, so that exposures can be compared."""
    return [_number(hashlib.sha256(f"canary space {place}".encode()).hexdigest()) for place in range(SPACE - 1)]


def exposure(rank: int) -> float:
    """Bits by which a canary stands out: log2 of the space less log2 of its rank (from 1) by loss, the lowest first. Of
    a number that was never seen it is 1.4 bits in the mean, and above e bits once in 2 to the e."""
    return math.log2(SPACE) - math.log2(rank)


def _number(hexadecimal: str) -> str:
    return f"{int(hexadecimal[:30], 16) % 10**DIGITS:0{DIGITS}d}"


def _chunk(mailbox: str, window_idx: int, place: int, number: str, ruler: Ruler) -> Chunk:
    subject = f"Subject: {CANARY}\n"
    text = f"{subject}{_LEAD}{_SENTENCE}{said(number)}.\n"
    n_tokens = ruler.count(text)
    return Chunk(
        mailbox=mailbox,
        chunk_id=f"{CANARY}:w{window_idx}:{place}",
        thread_id=CANARY,
        window_idx=window_idx,
        split=Split.TRAIN,
        sender=CANARY,
        message_keys=(),
        starts=(),
        ordinals=(),
        parents=(),
        n_context=0,
        n_messages=0,
        n_tokens=n_tokens,
        bucket=bucket_of(n_tokens),
        tier=Tier.CANARY,
        new_from=len(subject),
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        text=text,
    )
