"""A study as tables and as a part of a Markdown page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.home import write_atomic
from streams.forgetting.study import Study, Trained

if TYPE_CHECKING:
    from retrain.forgetting.figures import Drawn

REFERENCE = "uniform@20%"
"""The arm that those are compared with which have no ``uniform`` of their own share beside them."""


@dataclass(frozen=True, slots=True)
class Told:
    """A figure with its 95 % interval, and the same for each seed alone."""

    value: float
    low: float
    high: float
    seeds: tuple[float, ...]

    @classmethod
    def of(cls, drawn: Drawn) -> Told:
        low, high = drawn.interval()
        return cls(drawn.value, low, high, drawn.seeds)


@dataclass(frozen=True, slots=True)
class Row:
    """One arm, nats per token. ``against_none`` divides its forgetting by that of no rehearsal; the other ``_apart`` are
    differences to the reference, ``new_change`` that of the loss on new windows to no rehearsal, as a share of it. Tokens
    and seconds are of one training, on average."""

    arm: str
    forgetting: Told | None
    against_none: Told | None
    forgetting_apart: Told | None
    new: Told | None
    new_change: Told | None
    rare: Told | None
    rare_apart: Told | None
    rarer_apart: Told | None
    end: Told
    end_apart: Told | None
    new_tokens: float
    rehearsal_tokens: float
    cpu_s: float
    wall_s: float


def rows(study: Study) -> list[Row]:
    """The study's arms, in its order."""
    return [_row(trained, study.of("none"), _reference(study, trained)) for trained in study.arms]


def _reference(study: Study, trained: Trained) -> Trained | None:
    """``uniform`` of the same share, where there is one and it is another arm; else :data:`REFERENCE`, or nothing."""
    share = f"uniform@{100 * trained.arm.share:g}%"
    for name in (share, REFERENCE):
        other = study.of(name)
        if other is not None and other is not trained:
            return other
    return None


def _row(arm: Trained, none: Trained | None, reference: Trained | None) -> Row:
    mine = arm.figures
    bare = none.figures if none is not None and none is not arm else None
    other = reference.figures if reference is not None else None
    costs = [cost for seed in arm.costs for cost in seed]
    return Row(
        arm=arm.arm.name,
        forgetting=_told(mine.forgetting),
        against_none=_both(mine.forgetting, bare.forgetting if bare else None, lambda a, b: a.over(b)),
        forgetting_apart=_apart(mine.forgetting, other.forgetting if other else None),
        new=_told(mine.new),
        new_change=_both(mine.new, bare.new if bare else None, lambda a, b: a.minus(b).over(b)),
        rare=_told(mine.rare),
        rare_apart=_apart(mine.rare, other.rare if other else None),
        rarer_apart=_apart(mine.rarer, other.rarer if other else None),
        end=Told.of(mine.end),
        end_apart=_apart(mine.end, other.end if other else None),
        new_tokens=_mean(cost.new_tokens for cost in costs),
        rehearsal_tokens=_mean(cost.rehearsal_tokens for cost in costs),
        cpu_s=_mean(cost.cpu_s for cost in costs),
        wall_s=_mean(cost.wall_s for cost in costs),
    )


def _told(drawn: Drawn | None) -> Told | None:
    return None if drawn is None else Told.of(drawn)


def _both(mine: Drawn | None, other: Drawn | None, join: Callable[[Drawn, Drawn], Drawn]) -> Told | None:
    """Both together; None where one is missing, or where a ratio has nothing to divide by."""
    if mine is None or other is None:
        return None
    joined = join(mine, other)
    return Told.of(joined) if math.isfinite(joined.value) else None


def _apart(mine: Drawn | None, other: Drawn | None) -> Told | None:
    return _both(mine, other, lambda a, b: a.minus(b))


def _mean(values: Iterable[float]) -> float:
    every = list(values)
    return sum(every) / len(every) if every else 0.0


COLUMNS = (
    "arm",
    "forgetting",
    "of none",
    "minus uniform",
    "new",
    "new, change to none",
    "tokens new + again",
    "CPU s",
    "wall s",
)
APART = ("arm", "rarest decile of senders", "rarer half of senders", "all windows, after the last training")


def cells(row: Row) -> tuple[str, ...]:
    """A row as text, under :data:`COLUMNS`."""
    return (
        row.arm,
        _text(row.forgetting, "{:.3f}"),
        _text(row.against_none, "{:.2f}"),
        _text(row.forgetting_apart, "{:+.3f}"),
        "" if row.new is None else f"{row.new.value:.3f}",
        _text(row.new_change, "{:+.1%}"),
        f"{row.new_tokens:,.0f} + {row.rehearsal_tokens:,.0f}",
        f"{row.cpu_s:.1f}",
        f"{row.wall_s:.1f}",
    )


def apart(row: Row) -> tuple[str, ...]:
    """A row's differences to the reference, under :data:`APART`; its loss at the end before the difference."""
    end = " ".join(part for part in (f"{row.end.value:.3f}", _text(row.end_apart, "{:+.3f}")) if part)
    return (row.arm, _text(row.rare_apart, "{:+.3f}"), _text(row.rarer_apart, "{:+.3f}"), end)


def _text(told: Told | None, form: str) -> str:
    if told is None:
        return ""
    return f"{form.format(told.value)} ({form.format(told.low)} to {form.format(told.high)})"


def markdown(study: Study, pictures: Sequence[tuple[str, str]]) -> str:
    """The part of a page that tells of one study; ``pictures`` are (caption, path relative to the page)."""
    told = rows(study)
    lines = [
        _about(study),
        "",
        *_table(COLUMNS, [cells(row) for row in told]),
        "",
        f"Loss beside that of `uniform` (of the same share; where there is none, and for `uniform` itself, {REFERENCE}):",
        "",
        *_table(APART, [apart(row) for row in told]),
        "",
        *_full(study),
        *(line for caption, path in pictures for line in (f"![{caption}]({path})", "")),
    ]
    return "\n".join(lines)


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(line) + " |" for line in lines),
    ]


def _about(study: Study) -> str:
    parts = ", ".join(f"{len(list(group))} of {name}" for name, group in groupby(study.windows))
    base = ", ".join(f"{loss:.2f}" for loss in study.base)
    return (
        f"Windows in order: {parts}; {study.cut.first:,} mails in window 0, {study.cut.mails:,} in each other. "
        f"{study.seeds} seeds; {study.val_chunks} val chunks in {study.val_threads} threads; the rarest decile of "
        f"senders is {study.rare[0]} with {study.rare[1]} val chunks, the rarer half {study.rarer[0]} with "
        f"{study.rarer[1]}. Loss of the base on each window, before any training: {base}."
    )


def _full(study: Study) -> list[str]:
    """The full retrain beside going on from window to window, where the study has both."""
    full, reference = study.of("full"), study.of(REFERENCE)
    if full is None or reference is None:
        return []
    tokens = [_mean(c.new_tokens + c.rehearsal_tokens for seed in arm.costs for c in seed) for arm in (full, reference)]
    apart = Told.of(full.figures.end.minus(reference.figures.end))
    return [
        f"A full retrain on all {len(study.windows)} windows takes {tokens[0] / tokens[1]:.1f} times the tokens of one "
        f"training with {REFERENCE}; its loss over all windows is {_text(apart, '{:+.3f}')} beside it.",
        "",
    ]


def write_part(page: Path, name: str, text: str) -> None:
    """Puts ``text`` between the page's marks of ``name``; a page without them gets both at its end."""
    first, last = f"<!-- study {name} -->", f"<!-- /study {name} -->"
    before = page.read_text(encoding="utf-8") if page.is_file() else f"# The forgetting study\n\n{first}\n{last}\n"
    if first not in before or last not in before:
        before = f"{before.rstrip()}\n\n{first}\n{last}\n"
    head, _, rest = before.partition(first)
    _, _, tail = rest.partition(last)
    write_atomic(page, f"{head}{first}\n{text.rstrip()}\n{last}{tail}".encode())
    page.chmod(0o644)
