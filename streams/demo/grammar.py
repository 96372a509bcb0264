"""Sentences from templates: ``[a|b]`` is a choice, ``{slot}`` a word of the topic, ``{n:3-40}`` a number.

A thread has a focus, a few words of every slot to which it keeps returning, so that its mails speak of the same things:
a reply can be found by its parent's words, and a model can use what stands before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from streams.demo.dice import Dice

CHOICE = re.compile(r"\[([^\[\]]*)\]")
SLOT = re.compile(r"\{(\w+)(?::(\d+)-(\d+))?\}")
FOCUS_WORDS = 3
FOCUS_SHARE = 0.7
"""How often a slot is filled from the thread's focus rather than from the whole vocabulary."""

CLOCK_MINUTES = ("00", "15", "30", "45")


@dataclass(frozen=True, slots=True)
class Words:
    """The vocabulary of a thread: every word of each slot, and the few in focus."""

    all: Mapping[str, tuple[str, ...]]
    focus: Mapping[str, tuple[str, ...]]

    @classmethod
    def focused(cls, vocabulary: Mapping[str, tuple[str, ...]], dice: Dice) -> Words:
        return cls(vocabulary, {slot: dice.some(words, FOCUS_WORDS) for slot, words in vocabulary.items()})


def expand(template: str, words: Words, dice: Dice, *, avoid: Iterable[str] = ()) -> str:
    """Fills ``template``; choices may nest, and words may hold choices and slots themselves. The first letter is raised.

    A word is not said twice in one sentence, nor one of ``avoid``, where its slot has others.
    """
    text = template
    said = set(avoid)
    while "[" in text or "{" in text:
        text = CHOICE.sub(lambda found: dice.pick(found[1].split("|")), text)
        if "[" not in text:
            text = SLOT.sub(lambda found: _slot(found, words, dice, said), text)
    text = " ".join(text.split())
    return text[:1].upper() + text[1:]


def _slot(found: re.Match[str], words: Words, dice: Dice, said: set[str]) -> str:
    name, low, high = found.groups()
    if low is not None:
        return str(dice.between(int(low), int(high)))
    if name == "time":
        return f"{dice.between(7, 21)}:{dice.pick(CLOCK_MINUTES)}"
    pool = words.focus if dice.chance(FOCUS_SHARE) else words.all
    fresh = [word for word in pool[name] if word not in said] or [word for word in words.all[name] if word not in said]
    word = dice.pick(fresh or pool[name])
    said.add(word)
    return word
