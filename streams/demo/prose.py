"""The words of one mail: a greeting, some sentences of the topic in a habit of its writer, a farewell."""

from __future__ import annotations

from streams.demo.dice import Dice
from streams.demo.grammar import Words, expand
from streams.demo.person import Person
from streams.demo.topics import Topic

COMMON: dict[str, tuple[str, ...]] = {
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "price": ("{n:12-95} euros", "{n:110-480} euros", "{n:2-9} hundred pounds"),
    "tool": ("spirit level", "bradawl", "torch", "tape measure", "mallet", "hacksaw", "paint scraper"),
}

OPENERS = (
    "[I hope|Hope] you are well.",
    "A quick note before {day}.",
    "Here is the news from this side.",
    "Thank you for your call on {day}.",
    "I have been thinking about it all week.",
    "Some good news and some less good.",
    "You asked me to write it down, so here it is.",
    "It is {time} and I am still at it.",
)
REACTIONS = (
    "Thanks for this.",
    "That makes sense to me.",
    "I am not so sure.",
    "Oh dear.",
    "Splendid!",
    "I thought so.",
    "Good point.",
    "Sorry, I had missed that.",
    "Let me disagree a little.",
    "Yes, and there is more.",
    "I slept on it.",
    "That was quick!",
)
QUESTIONS = (
    "What do you say?",
    "Can you decide by {day}?",
    "Does {day} at {time} suit you?",
    "Have I forgotten anything?",
    "Who could ask {someone}?",
    "Shall I go ahead?",
    "Could you tell {someone}?",
)
FIRST_SENTENCES = (3, 6)
REPLY_SENTENCES = (2, 4)
SENTENCES_A_PARAGRAPH = 3


def thread_words(topic: Topic, people: tuple[Person, ...], dice: Dice) -> Words:
    """The vocabulary of a thread about ``topic``; ``someone`` is anybody who reads along or cares about the topic."""
    names = tuple(person.first_name for person in people)
    return Words.focused({**COMMON, **topic.words, "someone": names}, dice)


def write_paragraphs(
    topic: Topic, words: Words, sender: Person, reader: str, dice: Dice, *, reply: bool, fact: str | None
) -> tuple[str, ...]:
    """The own words of a mail, 30 to 120 of them, as paragraphs; ``fact`` is one more sentence, word for word."""
    templates = list(dice.some(topic.sentences, dice.between(*(REPLY_SENTENCES if reply else FIRST_SENTENCES))))
    if reply:
        templates[:0] = dice.some(topic.answers, dice.between(1, 2))
    apart = (sender.first_name, reader)
    sentences = [expand(template, words, dice, avoid=apart) for template in templates]
    if fact is not None:
        sentences.insert(dice.between(1, len(sentences)), fact)
    opener = expand(dice.pick(REACTIONS if reply else OPENERS), words, dice)
    if dice.chance(0.7):
        sentences.insert(0, opener)
    if dice.chance(0.35):
        sentences.append(expand(dice.pick(sender.sayings), words, dice))
    if dice.chance(0.45):
        sentences.append(expand(dice.pick(QUESTIONS), words, dice, avoid=apart))
    paragraphs = [
        " ".join(sentences[start : start + SENTENCES_A_PARAGRAPH])
        for start in range(0, len(sentences), SENTENCES_A_PARAGRAPH)
    ]
    if dice.chance(0.75):
        paragraphs.insert(0, dice.pick(sender.greetings).replace("{you}", reader))
    if dice.chance(0.8):
        paragraphs.append(dice.pick(sender.farewells))
    return tuple(paragraphs)
