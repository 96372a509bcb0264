"""What chaos runs have shown, in lines for a terminal and as the measured part of docs/chaos.md."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from statistics import quantiles

from tests.chaos.ordeal import Kill

UNHARMED = "nothing lost, doubled or leaked; every table and shard as in an undisturbed run"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run: what was done to it and what became of the mail. ``ended`` counts roles that ended by themselves."""

    bus: str
    seed: int
    mails: int
    messages: int
    windows: int
    runs: int
    kills: tuple[Kill, ...]
    ended: Mapping[str, int]
    faults: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Recovery:
    """One part: how often it was killed, how often it could be timed, and how long it took to get back to work, in
    seconds."""

    part: str
    kills: int
    timed: int
    p50: float | None
    p99: float | None


def recoveries(kills: Sequence[Kill]) -> list[Recovery]:
    """By part, in the order of the alphabet."""
    found = []
    for part in sorted({kill.part for kill in kills}):
        mine = [kill for kill in kills if kill.part == part]
        times = [kill.seconds for kill in mine if kill.seconds is not None]
        found.append(Recovery(part, len(mine), len(times), percentile(times, 50), percentile(times, 99)))
    return found


def percentile(values: Sequence[float], share: int) -> float | None:
    """Linear between the two values next to it; None of nothing."""
    if len(values) < 2:
        return values[0] if values else None
    return quantiles(values, n=100, method="inclusive")[share - 1]


def lines(outcome: Outcome) -> list[str]:
    """For a terminal."""
    told = [
        f"{outcome.bus}, seed {outcome.seed}: {len(outcome.kills)} kills, {outcome.mails} mails, "
        f"{outcome.messages} messages, {outcome.windows} windows, {outcome.runs} runs, {outcome.seconds:.0f} s",
        *(
            f"  {each.part}: {each.kills} kills, back to work after {_seconds(each.p50)} (p50), {_seconds(each.p99)} (p99)"
            for each in recoveries(outcome.kills)
        ),
        *(f"  {part} ended by itself {times} times and was started again" for part, times in sorted(outcome.ended.items())),
    ]
    return [*told, *(outcome.faults or (UNHARMED,))]


def section(outcomes: Sequence[Outcome], command: str, day: date) -> str:
    """The measured part of the page for one bus."""
    rows = [
        f"| {one.seed} | {len(one.kills)} | {one.mails:,} | {one.messages:,} | {one.windows} | {one.runs} "
        f"| {sum(one.ended.values())} | {'; '.join(one.faults) or UNHARMED} | {one.seconds / 60:.0f} |"
        for one in outcomes
    ]
    parts = [
        f"| {each.part} | {each.kills} | {each.timed} | {_seconds(each.p50)} | {_seconds(each.p99)} |"
        for each in recoveries([kill for one in outcomes for kill in one.kills])
    ]
    return "\n".join(
        [
            f"`{command}` on {day.isoformat()}:",
            "",
            "| seed | kills | mails | messages | windows | runs | ended by themselves | outcome | minutes |",
            "|---:|---:|---:|---:|---:|---:|---:|---|---:|",
            *rows,
            "",
            "| part | kills | timed | back to work, p50 | p99 |",
            "|---|---:|---:|---:|---:|",
            *parts,
        ]
    )


def with_section(page: str, bus: str, text: str) -> str:
    """The page with another measured part for ``bus``; raises ``ValueError`` when it has no place for one."""
    marks = re.compile(rf"(<!-- measured: {bus} -->\n).*?(<!-- /measured -->)", re.DOTALL)
    changed, count = marks.subn(lambda found: f"{found[1]}{text}\n{found[2]}", page)
    if count != 1:
        raise ValueError(f"the page has no place for {bus}")
    return changed


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"
