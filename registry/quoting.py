"""How much of what was found a model is given: as many of the best mails as its context holds, never more than it reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from registry.answer import Answer

LEAST_CHARACTERS = 60
"""Of a passage that is cut: less than about a sentence says nothing."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a model is given of an answer: its first mails, of which the only one may be cut short; ``notice`` says in a
    sentence what is missing, and is empty where nothing is."""

    answer: Answer
    notice: str = ""


def fitted(found: Answer, fits: Callable[[Answer], bool]) -> Fitted:
    """As many of the best mails as fit, whole; where not even the best one does, as much of its passage as fits.

    ``fits`` says whether a model's context holds the chat that is made of an answer, beside what else it must hold."""
    mails = found.citations
    if not mails:
        return Fitted(found, "no mail fits the question")
    for count in range(len(mails), 0, -1):
        answer = replace(found, citations=mails[:count], left_out=len(mails) - count)
        if fits(answer):
            return Fitted(answer, _left_out(count, len(mails)))
    answer = _cut_short(found, fits)
    if answer.citations:
        alone = " and stands alone" if len(mails) > 1 else ""
        return Fitted(answer, f"the best mail is cut short{alone}: the model's context holds no more")
    most = "the mail found does not fit" if len(mails) == 1 else f"none of the {len(mails)} mails found fits"
    return Fitted(answer, f"{most} the model's context beside the question and the answer")


def _left_out(count: int, of: int) -> str:
    if count == of:
        return ""
    are = "is" if of - count == 1 else "are"
    return f"{of - count} of the {of} mails found {are} left out: the model's context holds no more"


def _cut_short(found: Answer, fits: Callable[[Answer], bool]) -> Answer:
    """The best mail with the longest beginning of its passage that fits, ended at a word; no mail where none does."""
    best = found.citations[0]

    def beginning(characters: int) -> Answer:
        words = best.passage[:characters].rsplit(maxsplit=1)
        mail = replace(best, passage=f"{words[0] if words else ''} …")
        return replace(found, citations=(mail,), left_out=len(found.citations) - 1)

    low, high = LEAST_CHARACTERS, len(best.passage)
    if high <= low or not fits(beginning(low)):
        return replace(found, citations=(), left_out=len(found.citations))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(beginning(middle)) else (low, middle)
    return beginning(low)
