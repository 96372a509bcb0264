"""How eighteen months divide: what people write about when, and how much."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from streams.demo.dice import Dice

START = datetime(2024, 3, 4)
DAYS_A_MONTH = 30.44
JITTER_DAYS = 3.0


@dataclass(frozen=True, slots=True)
class Act:
    """A phase as planned: a share of all mail, and how its threads divide among topics."""

    name: str
    share: float
    topics: dict[str, float]


ACTS: tuple[Act, ...] = (
    Act("kitchen and harbour", 5.0, {"kitchen": 0.36, "harbour": 0.36, "everyday": 0.28}),
    Act("choir tour", 1.5, {"choir": 0.66, "harbour": 0.14, "kitchen": 0.10, "everyday": 0.10}),
    Act("boat refit", 1.5, {"boat": 0.66, "harbour": 0.14, "choir": 0.10, "everyday": 0.10}),
    Act("history book", 1.5, {"history": 0.66, "kitchen": 0.12, "choir": 0.12, "everyday": 0.10}),
    Act("weather station", 1.5, {"weather": 0.66, "harbour": 0.14, "boat": 0.10, "everyday": 0.10}),
    Act("allotment", 1.5, {"allotment": 0.66, "history": 0.12, "kitchen": 0.12, "everyday": 0.10}),
    Act("observatory", 1.5, {"observatory": 0.66, "weather": 0.14, "choir": 0.10, "everyday": 0.10}),
)
"""The first act is the bootstrap, with three topics; each later one brings a topic that nobody has written about before,
and lets some old ones return."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase as it falls: its time, UTC, and how many mails start in its threads."""

    index: int
    name: str
    starts: datetime
    ends: datetime
    mails: int
    topics: dict[str, float]


def lay_out(months: int, mails: int, dice: Dice) -> tuple[Phase, ...]:
    """The phases of ``months`` of 30.44 days, in proportion to the acts' shares; boundaries move by up to three days."""
    total = sum(act.share for act in ACTS)
    days = months * DAYS_A_MONTH
    phases: list[Phase] = []
    starts, reached, counted = START, 0.0, 0
    for index, act in enumerate(ACTS):
        reached += act.share
        last = index == len(ACTS) - 1
        jitter = 0.0 if last else (2 * dice.unit() - 1) * min(JITTER_DAYS, days / 100)
        ends = START + timedelta(seconds=round((days * reached / total + jitter) * 86_400))
        upto = round(mails * reached / total)
        phases.append(Phase(index, act.name, starts, ends, upto - counted, act.topics))
        starts, counted = ends, upto
    return tuple(phases)
