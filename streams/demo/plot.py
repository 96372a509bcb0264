"""The whole story, thread by thread and in order of arrival, before anything is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from streams.demo.dice import Dice
from streams.demo.facts import FACTS, Fact
from streams.demo.letters import Letter
from streams.demo.machines import away, newsletter, report
from streams.demo.phases import Phase, lay_out
from streams.demo.threads import LENGTHS, converse
from streams.demo.topics import TOPICS, Topic

MACHINES = ((newsletter, 0.11), (report, 0.05), (away, 0.02))
"""What writes without a person, and its share of threads; the rest are conversations."""

HOURS = (7, 8, 8, 9, 9, 10, 11, 12, 14, 15, 17, 18, 19, 20, 20, 21, 22)
SETTLING_DAYS = 2.0
"""No thread starts so shortly before its phase ends, where the phase is long enough."""

BY_NAME: dict[str, Topic] = {topic.name: topic for topic in TOPICS}


@dataclass(frozen=True, slots=True)
class Plan:
    """A thread to come; ``topic`` is None where a machine writes."""

    starts: datetime
    topic: str | None
    length: int


@dataclass(frozen=True, slots=True)
class Plot:
    phases: tuple[Phase, ...]
    letters: tuple[Letter, ...]


def tell(seed: int, months: int, messages: int) -> Plot:
    """``messages`` letters in the order in which they arrive, no two in the same second."""
    dice = Dice(seed, "plot")
    phases = lay_out(months, messages, dice.fork("phases"))
    letters: list[Letter] = []
    thread = 0
    for phase in phases:
        plans = _plans(phase, dice.fork(f"plans {phase.index}"))
        facts = _places(plans, phase)
        for position, plan in enumerate(plans):
            chance = dice.fork(f"thread {thread}")
            if plan.topic is None:
                write = chance.pick_weighted([write for write, _ in MACHINES], [share for _, share in MACHINES])
                letters.append(write(phase, thread, plan.starts, chance))
            else:
                topic = BY_NAME[plan.topic]
                letters += converse(phase, thread, topic, plan.starts, plan.length, facts.get(position), chance)
            thread += 1
    return Plot(phases, _one_a_second(letters))


def _plans(phase: Phase, dice: Dice) -> list[Plan]:
    """Threads that hold exactly the phase's number of mails."""
    plans: list[Plan] = []
    left = phase.mails
    machine_share = sum(share for _, share in MACHINES)
    while left > 0:
        starts = _start(phase, dice)
        if dice.chance(machine_share):
            plans.append(Plan(starts, None, 1))
        else:
            topic = dice.pick_weighted(list(phase.topics), list(phase.topics.values()))
            length = 1 + dice.pick_weighted(range(len(LENGTHS)), LENGTHS)
            plans.append(Plan(starts, topic, min(length, left)))
        left -= plans[-1].length
    return plans


def _start(phase: Phase, dice: Dice) -> datetime:
    span = max((phase.ends - phase.starts) / timedelta(days=1) - SETTLING_DAYS, 1.0)
    day = phase.starts + timedelta(days=dice.unit() * span)
    return day.replace(hour=dice.pick(HOURS), minute=dice.between(0, 59), second=dice.between(0, 59), microsecond=0)


def _places(plans: list[Plan], phase: Phase) -> dict[int, Fact]:
    """Which plan's thread states which fact: those of the topics that the phase is about, spread over its threads."""
    most = max(phase.topics.values())
    places: dict[int, Fact] = {}
    for topic, share in phase.topics.items():
        if phase.index and share < most:
            continue
        facts = [fact for fact in FACTS if fact.topic == topic]
        threads = [position for position, plan in enumerate(plans) if plan.topic == topic]
        for rank, fact in enumerate(facts[: len(threads)]):
            places[threads[rank * len(threads) // len(facts)] if len(threads) >= len(facts) else threads[rank]] = fact
    return places


def _one_a_second(letters: list[Letter]) -> tuple[Letter, ...]:
    ordered: list[Letter] = []
    for letter in sorted(letters, key=lambda letter: (letter.arrived, letter.message_id)):
        whole = letter.arrived.replace(microsecond=0)
        earliest = ordered[-1].arrived + timedelta(seconds=1) if ordered else whole
        ordered.append(replace(letter, arrived=max(whole, earliest)))
    return tuple(ordered)
