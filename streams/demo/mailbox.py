"""Writes the generated mailbox as an mbox file and says what is in it.

The same seed gives the same bytes on any machine and under any Python. The story runs through seven phases over the
months: each brings a topic with words of its own and lets old ones return, so that a model that is trained window by
window has something to learn and something to forget.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pipeline.home import atomic_path
from streams.demo.damage import list_copy
from streams.demo.dice import Dice
from streams.demo.letters import Letter
from streams.demo.mishaps import Mishaps, befall
from streams.demo.people import OWNER
from streams.demo.phases import Phase
from streams.demo.plot import tell
from streams.demo.post import post
from streams.demo.quoting import MONTHS, WEEKDAYS
from streams.demo.topics import TOPICS

FROM_LINE = re.compile(rb"^(>*From )", re.MULTILINE)
COPY_HOURS = 30


@dataclass(frozen=True, slots=True)
class DemoFact:
    """Something that one mail says: a question about it, what a right answer contains, and the id of that mail."""

    question: str
    answer: str
    message_id: str


@dataclass(frozen=True, slots=True)
class DemoPhase:
    """What was written in a phase: times in UTC, distinct messages, threads as their writers meant them."""

    name: str
    starts: datetime
    ends: datetime
    messages: int
    threads: int


@dataclass(frozen=True, slots=True)
class DemoMailbox:
    """What ``path`` holds: ``mails`` with the ``duplicates``, ``messages`` without; ``broken``, ``bulk`` and ``automatic``
    are among the messages, and so are ``bridges``, mails that answer two threads at once."""

    path: Path
    owner: tuple[str, ...]
    lists: tuple[str, ...]
    mails: int
    messages: int
    threads: int
    duplicates: int
    broken: int
    bulk: int
    automatic: int
    bridges: int
    phases: tuple[DemoPhase, ...]
    facts: tuple[DemoFact, ...]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A mail as it arrives: when (UTC), from which address, and its bytes."""

    arrived: datetime
    sender: str
    raw: bytes


def write_mailbox(path: Path, *, seed: int, months: int = 18, messages: int = 1400) -> DemoMailbox:
    """Writes ``messages`` distinct messages and a few duplicates to ``path`` (mboxrd, in order of arrival)."""
    plot = tell(seed, months, messages)
    dice = Dice(seed, "mishaps")
    mishaps = befall(plot.letters, dice)
    letters = mishaps.letters
    deliveries = _deliveries(mishaps, dice)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for delivery in deliveries:
            file.write(_separator(delivery) + FROM_LINE.sub(rb">\1", delivery.raw) + b"\n")
    return DemoMailbox(
        path=path,
        owner=(OWNER.address,),
        lists=tuple(topic.list_address for topic in TOPICS if topic.list_address),
        mails=len(deliveries),
        messages=len(letters),
        threads=len({letter.thread for letter in letters}),
        duplicates=len(deliveries) - len(letters),
        broken=len(mishaps.broken),
        bulk=sum(("Precedence", "bulk") in letter.headers for letter in letters),
        automatic=sum(any(name == "Auto-Submitted" for name, _ in letter.headers) for letter in letters),
        bridges=len(mishaps.bridges),
        phases=tuple(_phase(phase, letters) for phase in plot.phases),
        facts=tuple(
            DemoFact(letter.fact.question, letter.fact.answer, letter.message_id) for letter in letters if letter.fact
        ),
    )


def _deliveries(mishaps: Mishaps, dice: Dice) -> list[Delivery]:
    deliveries: list[Delivery] = []
    for letter in mishaps.letters:
        pack = mishaps.broken.get(letter.message_id, post)
        deliveries.append(Delivery(letter.arrived, letter.sender.address, pack(letter)))
        if letter.message_id in mishaps.copied:
            later = letter.arrived + timedelta(minutes=dice.between(1, COPY_HOURS * 60))
            deliveries.append(Delivery(later, letter.sender.address, list_copy(letter)))
    return sorted(deliveries, key=lambda delivery: delivery.arrived)


def _phase(phase: Phase, letters: tuple[Letter, ...]) -> DemoPhase:
    mine = [letter for letter in letters if letter.phase == phase.index]
    return DemoPhase(phase.name, phase.starts, phase.ends, len(mine), len({letter.thread for letter in mine}))


def _separator(delivery: Delivery) -> bytes:
    """``From address Mon Mar  4 09:00:00 2024``: the asctime form, in UTC, whatever the locale."""
    when = delivery.arrived
    date = f"{WEEKDAYS[when.weekday()]} {MONTHS[when.month - 1][:3]} {when.day:2} {when:%H:%M:%S} {when.year}"
    return f"From {delivery.sender} {date}\n".encode("ascii")
