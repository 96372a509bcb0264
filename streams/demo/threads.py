"""Conversations: who writes to whom, when, and in answer to what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from streams.demo.attachments import some_file
from streams.demo.dice import Dice
from streams.demo.facts import Fact
from streams.demo.grammar import Words, expand
from streams.demo.letters import Letter
from streams.demo.people import OWNER, PEOPLE
from streams.demo.person import Person
from streams.demo.phases import Phase
from streams.demo.prose import thread_words, write_paragraphs
from streams.demo.topics import Topic

LENGTHS = (0.41, 0.26, 0.14, 0.09, 0.05, 0.03, 0.012, 0.008)
"""Shares of threads with 1, 2, ... 8 mails: 2.2 on average."""

OWNER_STARTS = 0.25
OWNER_ANSWERS = 0.55
REPLY_HOURS = 9.0
NO_REFERENCES = 0.06
"""Share of replies that name their parent in In-Reply-To alone; the next share names it nowhere but in the subject."""
NO_PARENT = 0.03
PROSE_PARENT = 0.03
"""Share of replies whose In-Reply-To also holds an address, as some programs write it."""
WRONG_CLOCK = 0.012
WITH_FILE = 0.06
SIGNED = 0.6


@dataclass(frozen=True, slots=True)
class Cast:
    """Who takes part in a thread, and the words it keeps to."""

    topic: Topic
    people: tuple[Person, ...]
    words: Words
    subject: str
    list_address: str | None


def converse(
    phase: Phase, thread: int, topic: Topic, starts: datetime, length: int, fact: Fact | None, dice: Dice
) -> Iterator[Letter]:
    """The mails of one thread in the order in which they are written; a fact stands in the last, so that none quotes it."""
    people = tuple(PEOPLE[key] for key in dice.some(topic.people, dice.between(1, 3)))
    words = thread_words(topic, (*people, *(PEOPLE[key] for key in topic.people)), dice)
    listed = topic.list_address if fact is None and dice.chance(0.6) else None
    cast = Cast(topic, people, words, expand(dice.pick(topic.subjects), words, dice), listed)
    written: list[Letter] = []
    arrived = starts
    for position in range(length):
        parent = _answered(written, dice)
        if parent is not None:
            arrived += timedelta(hours=0.2 + dice.wait(REPLY_HOURS))
        last = position == length - 1
        letter = _letter(phase, thread, cast, parent, arrived, fact if last else None, dice)
        written.append(letter)
        yield letter


def _answered(written: list[Letter], dice: Dice) -> Letter | None:
    if not written:
        return None
    return written[-1] if dice.chance(0.8) else dice.pick(written)


def _letter(
    phase: Phase, thread: int, cast: Cast, parent: Letter | None, arrived: datetime, fact: Fact | None, dice: Dice
) -> Letter:
    sender = _sender(cast, parent, dice)
    others = tuple(person for person in (OWNER, *cast.people) if person is not sender)
    if parent is None:
        to = others[:1]
    elif parent.sender is sender:
        to = parent.to
    else:
        to = (parent.sender,)
    copies = tuple(person for person in others if person not in to)
    if OWNER not in (sender, *to) and cast.list_address is None:
        copies = (OWNER, *(person for person in copies if person is not OWNER))
    elif dice.chance(0.4):
        copies = ()
    reader = "all" if cast.list_address and dice.chance(0.5) else to[0].first_name
    files = (some_file(cast.topic.name, dice),) if dice.chance(WITH_FILE) else ()
    references, in_reply_to = _ancestry(parent, dice)
    return Letter(
        message_id=f"{dice.hexadecimal(12)}.{arrived:%y%m%d%H%M}@{sender.address.partition('@')[2]}",
        phase=phase.index,
        thread=thread,
        topic=cast.topic.name,
        sender=sender,
        to=to,
        cc=copies,
        subject=cast.subject if parent is None else _reply_subject(sender, cast.subject, dice),
        sent=_sent(arrived, dice),
        arrived=arrived,
        form=dice.pick(sender.forms),
        paragraphs=write_paragraphs(
            cast.topic,
            cast.words,
            sender,
            reader,
            dice,
            reply=parent is not None,
            fact=fact.sentence if fact else None,
        ),
        quoted=parent if dice.chance(0.85) else None,
        in_reply_to=in_reply_to,
        references=references,
        fact=fact,
        files=files,
        list_address=cast.list_address,
        signed=dice.chance(SIGNED),
    )


def _sender(cast: Cast, parent: Letter | None, dice: Dice) -> Person:
    if parent is None:
        return OWNER if dice.chance(OWNER_STARTS) else dice.pick(cast.people)
    if parent.sender is not OWNER and dice.chance(OWNER_ANSWERS):
        return OWNER
    others = tuple(person for person in cast.people if person is not parent.sender)
    return dice.pick(others) if others else OWNER


def _ancestry(parent: Letter | None, dice: Dice) -> tuple[tuple[str, ...], str | None]:
    """References and In-Reply-To of an answer to ``parent``."""
    if parent is None or dice.chance(NO_PARENT):
        return (), None
    parent_id = f"<{parent.message_id}>"
    if dice.chance(NO_REFERENCES):
        return (), parent_id
    if dice.chance(PROSE_PARENT):
        return (), f"{parent_id} (a message from <{parent.sender.address}>)"
    return (*parent.references, parent.message_id), parent_id


def _reply_subject(sender: Person, subject: str, dice: Dice) -> str:
    german = sender.address.endswith(("muster.example", "normalfall.example"))
    prefix = "AW: " if german else "RE: " if dice.chance(0.1) else "Re: "
    return prefix + subject


def _sent(arrived: datetime, dice: Dice) -> datetime:
    """The Date header: some seconds before arrival, now and then hours or days before, from a clock that is wrong."""
    if dice.chance(WRONG_CLOCK):
        return arrived - timedelta(hours=dice.between(3, 70))
    return arrived - timedelta(seconds=dice.between(2, 90))
