"""What no output of a model should hold: secrets, numbers of people that their check digits prove, and words that hurt.

The same forms that are masked before training are looked for in what comes out. Addresses and phone numbers are no flags:
they stand under every second mail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.privacy.lexicon import Lexicon
from pipeline.privacy.personal import find_personal
from pipeline.privacy.scrub import find_credentials

PROVED = ("card", "iban", "id")
"""Kinds of personal data that a check digit tells from other numbers."""


@dataclass(frozen=True, slots=True)
class Flag:
    """Something in a text that should not be there; ``kind`` is that of a secret, or a classifier's."""

    kind: str
    excerpt: str


class TextClassifier(Protocol):
    """Says what is wrong with a text. A model of one's own fits in here; it must answer alike for the same text."""

    def flags(self, text: str) -> Sequence[Flag]:
        """What it finds, nothing where the text is fine."""
        ...


class HurtfulWords:
    """The classifier that is always there: a short list of insults and threats. It knows words, not meaning: what it
    catches and misses is measured in ``docs/privacy.md``."""

    def __init__(self) -> None:
        self._lexicon = Lexicon()

    def flags(self, text: str) -> Sequence[Flag]:
        return [Flag(kind, words) for kind, words in self._lexicon.find(text)]


def flags_of(text: str, classifier: TextClassifier | None = None) -> tuple[Flag, ...]:
    """Everything in a text that should not be there; ``classifier`` is :class:`HurtfulWords` unless given. Pure."""
    found: list[Flag] = []

    def note(kind: str, secret: str) -> str:
        found.append(Flag(kind, secret))
        return f"[masked:{kind}]"

    find_personal(find_credentials(text, note), PROVED, note)
    return (*found, *(classifier or HurtfulWords()).flags(text))
