"""Which language a paragraph is in, as far as its script and its commonest small words tell. Pure.

Small words (articles, pronouns, conjunctions) make up a quarter and more of running text in any of these languages and are
rare in code, logs and tables. So a paragraph without them is not taken for prose of an unknown language: it has none.
"""

from __future__ import annotations

import re
from collections import Counter

SMALL_WORDS = {
    "en": "the of to that it you this with was have are but which they what would there from can been your",
    "de": "der die das und ist nicht ich ein eine mit den auf für es wir sie auch dass von zu wie haben",
    "fr": "le la les et est pas je une dans que pour vous ce sur avec qui sont nous mais du au cette",
    "es": "el los las que es no una por con para su como más pero del esta lo hay muy este",
    "it": "il che di non un per sono con della gli anche ho questo come ma alla nel più dei",
    "pt": "que não uma os para com do da em se mas como mais você isso ao foi está dos",
    "nl": "de het een en van niet dat ik is op te zijn voor met maar ook wat wel deze naar",
    "sv": "och att det som på är en jag inte med för av om har den till ett men kan vi",
    "pl": "nie się jest że jak ale po tak za od czy dla już są być tylko który przez może też",
    "cs": "je se na že jako ale jsem tak pro jak není ve už jsou nebo který aby ještě když může",
    "tr": "ve bir bu için da ile çok ama daha ne olarak var gibi ben değil mi ki olan sonra kadar",
    "fi": "on ja ei että se oli mutta kun niin myös ovat tai jos hän ole mitä tämä sen voi vain",
}
"""Some twenty of the commonest small words of each language that mail here was seen in; a word may stand in several."""

SCRIPTS = {
    "Greek": "\u0370-\u03ff\u1f00-\u1fff",
    "Cyrillic": "\u0400-\u052f",
    "Hebrew": "\u0590-\u05ff",
    "Arabic": "\u0600-\u06ff\u0750-\u077f",
    "Devanagari": "\u0900-\u097f",
    "Thai": "\u0e00-\u0e7f",
    "Hangul": "\u1100-\u11ff\uac00-\ud7af",
    "Kana": "\u3040-\u30ff",
    "Han": "\u3400-\u4dbf\u4e00-\u9fff",
}
"""Scripts that tell enough by themselves, and their letters; Japanese counts as Kana, which nobody else writes."""

LEAST_WORDS, LEAST_SHARE = 2, 0.12
"""Different small words of a language, and the share of all words that they make up, from which a paragraph is in it. One
alone may be a name in a program."""

_LETTER = re.compile(r"[^\W\d_]")
_WORD = re.compile(r"[^\W\d_]+")
_IN_SCRIPT = {name: re.compile(f"[{letters}]") for name, letters in SCRIPTS.items()}
_OF_WORD: dict[str, tuple[str, ...]] = {}
for _language, _words in SMALL_WORDS.items():
    for _word in _words.split():
        _OF_WORD[_word] = (*_OF_WORD.get(_word, ()), _language)


def language_of(paragraph: str) -> str:
    """A key of :data:`SMALL_WORDS` or :data:`SCRIPTS`; "" where neither tells, as in code, figures and very short lines."""
    if not paragraph.isascii():
        letters = len(_LETTER.findall(paragraph))
        found = {name: len(pattern.findall(paragraph)) for name, pattern in _IN_SCRIPT.items()}
        if found["Kana"] and 2 * (found["Kana"] + found["Han"]) > letters:
            return "Kana"
        script = max(found, key=lambda name: found[name])
        if 2 * found[script] > letters:
            return script
    words = _WORD.findall(paragraph.lower())
    counts = Counter(word for word in words if word in _OF_WORD)
    hits = dict.fromkeys(SMALL_WORDS, 0)
    different = dict.fromkeys(SMALL_WORDS, 0)
    for word, count in counts.items():
        for language in _OF_WORD[word]:
            hits[language] += count
            different[language] += 1
    best = max(hits, key=lambda language: hits[language])
    return best if different[best] >= LEAST_WORDS and hits[best] >= LEAST_SHARE * len(words) else ""
