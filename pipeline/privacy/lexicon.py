"""A short list of English insults and threats said to the reader, as one would not want them written in one's name.

Nouns count only where "you" stands shortly before them: on a list, most who write "idiot" mean themselves.
"""

from __future__ import annotations

import re

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


class Lexicon:
    """Finds insults and threats as whole words, in any case."""

    def __init__(self) -> None:
        insults = (f"{_TO_YOU}(?:{'|'.join(NOUNS)})", *INSULTS)
        self._kinds = [(kind, _any_of(words)) for kind, words in (("insult", insults), ("threat", THREATS))]

    def find(self, text: str) -> list[tuple[str, str]]:
        """(kind, words) for each place, in the order of kinds and places."""
        plain = text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
        return [(kind, found[0]) for kind, expression in self._kinds for found in expression.finditer(plain)]


def _any_of(words: tuple[str, ...]) -> re.Pattern[str]:
    joined = "|".join(word.replace(" ", r"\s{1,4}") for word in words)
    return re.compile(rf"(?<![\w-])(?:{joined})s?(?![\w-])", re.IGNORECASE)
