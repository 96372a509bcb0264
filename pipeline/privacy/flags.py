"""What no output of a model should hold: secrets, numbers of people that their check digits prove, and words that hurt.

The same forms that are masked before training are looked for in what comes out. Addresses and phone numbers are no flags:
they stand under every second mail.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from pipeline.privacy.personal import find_personal
from pipeline.privacy.scrub import find_credentials

PROVED = ("card", "iban", "id")
"""Kinds of personal data that a check digit tells from other numbers."""

# English insults and threats said to the reader, as one would not want them written in one's name. Nouns count only where
# "you" stands shortly before them: on a list, most who write "idiot" mean themselves.
NOUNS = (
    "idiot", "moron", "imbecile", "asshole", "arsehole", "bastard", "bitch", "cunt", "dickhead", "dumbass", "scumbag",
    "shithead", "motherfucker", "piece of shit", "retard", "wanker", "twat", "prick", "jackass", "douchebag", "liar",
    "loser", "disgrace", "son of a bitch",
)  # fmt: skip
INSULTS = ("fuck (?:you|off)", "go to hell", "drop dead", "you(?:'re| are) (?:pathetic|worthless|disgusting|useless)")
THREATS = (
    "(?:i|we)(?:'ll| will| am going to|'m going to|'re going to) (?:kill|hurt|destroy|ruin) you",
    "you(?:'ll| will) (?:regret|pay for) (?:this|it|that)", "i know where you live", "kill yourself",
    "(?:watch|mind) your back", "you(?:'re| are) dead",
)  # fmt: skip
_TO_YOU = r"you(?:'re| are|,| really are| must be)? (?:an? |such an? |the |nothing but an? )?(?:[a-z]{3,10} ){0,2}"


class TextClassifier(Protocol):
    """Says what is wrong with a text. A model of one's own fits in here; it must answer alike for the same text."""

    def flags(self, text: str) -> Sequence[str]:
        """The kind of each thing that it finds, nothing where the text is fine."""
        ...


class HurtfulWords:
    """The classifier that is always there: a short list of insults and threats, as whole words in any case. It knows words,
    not meaning: what it catches and misses is measured in ``docs/privacy.md``."""

    def __init__(self) -> None:
        insults = (f"{_TO_YOU}(?:{'|'.join(NOUNS)})", *INSULTS)
        self._kinds = [(kind, _any_of(words)) for kind, words in (("insult", insults), ("threat", THREATS))]

    def flags(self, text: str) -> list[str]:
        plain = text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
        return [kind for kind, expression in self._kinds for _ in expression.finditer(plain)]


def flags_of(text: str, classifier: TextClassifier | None = None) -> tuple[str, ...]:
    """The kind of everything in a text that should not be there: that of a secret or of personal data, or what
    ``classifier`` (:class:`HurtfulWords` unless given) calls it. Pure."""
    found: list[str] = []

    def note(kind: str, secret: str) -> str:
        found.append(kind)
        return f"[masked:{kind}]"

    find_personal(find_credentials(text, note), PROVED, note)
    return (*found, *(classifier or HurtfulWords()).flags(text))


def _any_of(words: tuple[str, ...]) -> re.Pattern[str]:
    joined = "|".join(word.replace(" ", r"\s{1,4}") for word in words)
    return re.compile(rf"(?<![\w-])(?:{joined})s?(?![\w-])", re.IGNORECASE)
