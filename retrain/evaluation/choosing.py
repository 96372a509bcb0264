"""Which checkpoint becomes the adapter, and why: a table of all of them by what may choose, and the rule that picked. Pure.

``val_loss`` takes the lowest perplexity. ``weighted`` rescales each part to the range that it has over the checkpoints, 0
for the worst and 1 for the best, and takes the largest weighted sum: without that a weight would mean nothing, as
perplexities differ by tens and shares by hundredths. A part that is the same for all, or that none has, decides nothing and
is left out of the sum. ``pareto`` takes of those that no other beats in every part the one with the largest mean of the
rescaled parts. Thresholds come first; where none keeps them they are set aside, which the reason says. Of equals the
earliest is taken.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.runs.replyfiles import Given, ReplyLoss
from pipeline.runs.runfiles import Loss
from pipeline.runs.selection import GREATER_IS_BETTER, PARTS, Threshold
from retrain.training.early_stopping import mean_loss

if TYPE_CHECKING:
    from retrain.evaluation.writing import Written


@dataclass(frozen=True, slots=True)
class Candidate:
    """A checkpoint and its parts (:data:`pipeline.runs.selection.PARTS`), those that were measured; ``kept`` while its
    weights are on disk."""

    name: str
    step: int
    parts: Mapping[str, float]
    kept: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """A candidate under the rule. ``rescaled`` holds each part from 0 (the worst of the checkpoints) to 1 (the best),
    ``score`` what the rule ranks by, ``front`` whether no other beats it in every part, ``broken`` the thresholds that it
    does not keep."""

    checkpoint: str
    parts: Mapping[str, float]
    rescaled: Mapping[str, float]
    score: float | None
    front: bool
    broken: tuple[str, ...]
    kept: bool
    chosen: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """The rule, what it weighed, every checkpoint, the one chosen, and why in a sentence."""

    rule: str
    weights: Mapping[str, float]
    thresholds: tuple[str, ...]
    rows: tuple[Row, ...]
    chosen: str
    reason: str


def parts_of(
    losses: Sequence[Loss], replies: Sequence[ReplyLoss], written: Sequence[Written], chunks: Collection[str]
) -> dict[str, float]:
    """The parts of one checkpoint: perplexity on ``chunks``, the loss of ``replies`` given retrieved mail, and how near
    what was ``written`` comes to the real replies. The search is the same for every checkpoint, so its recall is no
    part."""
    found: dict[str, float] = {}
    loss = mean_loss(losses, chunks)
    if loss is not None:
        found["ppl"] = math.exp(loss)
    given = [reply for reply in replies if reply.given == Given.RETRIEVED]
    if given:
        found["rag"] = sum(reply.nll for reply in given) / sum(reply.n_tokens for reply in given)
    if written:
        found["accuracy"] = sum(one.rouge_l for one in written) / len(written)
    return found


def choose(
    candidates: Sequence[Candidate], rule: str, weights: Mapping[str, float], thresholds: Sequence[Threshold]
) -> Choice:
    """Chooses among ``candidates`` (at least one, in the order of their steps) those whose weights are on disk."""
    measured = [part for part in PARTS if all(part in candidate.parts for candidate in candidates)]
    scaled = {part: _rescaled(part, [candidate.parts[part] for candidate in candidates]) for part in measured}
    telling = [part for part in measured if len({candidate.parts[part] for candidate in candidates}) > 1]
    used = _weights(rule, weights, telling)
    rows = []
    for place, candidate in enumerate(candidates):
        rescaled = {part: scaled[part][place] for part in measured}
        rows.append(
            Row(
                checkpoint=candidate.name,
                parts=candidate.parts,
                rescaled=rescaled,
                score=_score(rule, candidate, rescaled, used),
                front=not any(_beats(other, candidate, measured) for other in candidates),
                broken=tuple(str(bound) for bound in thresholds if not _keeps(candidate, bound)),
                kept=candidate.kept,
                chosen=False,
            )
        )
    best = _best(rows, rule)
    told = tuple(replace(row, chosen=row is best) for row in rows)
    reason = _reason(rule, best, used, set_aside=bool(best.broken))
    return Choice(rule, used, tuple(map(str, thresholds)), told, best.checkpoint, reason)


def _score(rule: str, candidate: Candidate, rescaled: Mapping[str, float], used: Mapping[str, float]) -> float | None:
    """Greater is better; None where nothing tells the checkpoints apart."""
    if rule == "val_loss":
        return -candidate.parts["ppl"] if "ppl" in rescaled else None
    return sum(weight * rescaled[part] for part, weight in used.items()) if used else None


def _best(rows: Sequence[Row], rule: str) -> Row:
    """The highest score, the earliest of equals, else the last row: of those kept, within the thresholds and, if the rule
    asks for it, on the front; each of these is set aside where none is."""
    pool = [row for row in rows if row.kept] or rows[-1:]
    pool = [row for row in pool if not row.broken] or pool
    if rule == "pareto":
        pool = [row for row in pool if row.front] or pool
    scored = [row for row in pool if row.score is not None]
    return max(scored, key=lambda row: row.score or 0.0) if scored else pool[-1]


def last(candidates: Sequence[Candidate], rule: str) -> Choice:
    """The last one, where no val thread may choose."""
    rows = tuple(Row(one.name, one.parts, {}, None, False, (), one.kept, one is candidates[-1]) for one in candidates)
    reason = "the last checkpoint: val holds too few threads to choose and to judge, so all of it judges"
    return Choice(rule, {}, (), rows, candidates[-1].name, reason)


def _weights(rule: str, weights: Mapping[str, float], telling: Sequence[str]) -> dict[str, float]:
    if rule == "val_loss":
        return {}
    wanted = {part: 1.0 for part in telling} if rule == "pareto" else {p: w for p, w in weights.items() if p in telling}
    total = sum(wanted.values())
    return {part: weight / total for part, weight in wanted.items()} if total else {}


def _rescaled(part: str, values: Sequence[float]) -> list[float]:
    low, high = min(values), max(values)
    if low == high:
        return [1.0] * len(values)
    shares = [(value - low) / (high - low) for value in values]
    return shares if part in GREATER_IS_BETTER else [1 - share for share in shares]


def _beats(one: Candidate, other: Candidate, parts: Sequence[str]) -> bool:
    """At least as good in every part, and better in one."""
    gaps = [(one.parts[part] - other.parts[part]) * (1 if part in GREATER_IS_BETTER else -1) for part in parts]
    return all(gap >= 0 for gap in gaps) and any(gap > 0 for gap in gaps)


def _keeps(candidate: Candidate, bound: Threshold) -> bool:
    """What was not measured keeps no threshold."""
    value = candidate.parts.get(bound.part)
    return value is not None and bound.kept_by(value)


def _reason(rule: str, row: Row, used: Mapping[str, float], *, set_aside: bool) -> str:
    if row.score is None:
        told = f"{rule}: nothing tells the checkpoints apart, so the last one is taken"
    elif rule == "val_loss":
        told = f"the lowest perplexity on the val threads that choose, {row.parts['ppl']:.4g}"
    else:
        parts = ", ".join(f"{part} {row.rescaled[part]:.2f} x {weight:.2f}" for part, weight in used.items())
        told = f"{rule}: the highest score, {row.score:.3f} ({parts})"
        if rule == "pareto":
            told = f"pareto: on the front, and there the highest mean of the rescaled parts, {row.score:.3f} ({parts})"
    return f"{told}; no checkpoint keeps every threshold, so they were set aside" if set_aside else told
