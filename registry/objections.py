"""What else may speak against a promotion than the losses: measured figures, each held against a limit of the policy.

A run leaves its figures in ``eval_results.json`` (:mod:`pipeline.runs.harms`); what only time or people tell (feedback, a
spot check, the price) is given to the decision by :mod:`registry.late`.

**Every figure is harm: greater is worse**, and 0 is no harm. A rule objects when the lower bound lies above its limit, so
to what is shown, not to what is merely possible; of what is counted or priced and not estimated the figure itself does. A
figure that is missing, not finite, without bounds where it needs them, or of less evidence than the policy wants leaves the
rule absent: it then says why, and neither bars nor helps.

| name | figure | n |
|---|---|---|
| ``retrieval`` | nDCG@10 lost against the champion | questions |
| ``rag`` | nats per token by which real replies cost more than under the model before, given retrieved mail | replies |
| ``latency`` | share by which p95 of an answer takes longer than the champion's | interleaved pairs |
| ``safety`` | share of outputs with a flag | outputs |
| ``canary`` | mean exposure of planted secrets, in bits | secrets |
| ``contamination`` | share of judging chunks with a near copy in training | chunks |
| ``benchmarks`` | points lost against the champion | questions |
| ``feedback`` | share of answers overridden beyond the champion's | answers |
| ``spot_check`` | share of decided pairs in which the champion's answer was preferred | judged pairs |
| ``cost`` | what the run cost | 1 |
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from pipeline.config.gate_settings import LeastSettings
from pipeline.config.settings import GateSettings
from pipeline.intervals import finite
from pipeline.runs.harms import Figure

ASKS = {
    "retrieval": "nDCG@10 lost against the champion",
    "rag": "nats per token by which replies cost more than under the model before, given retrieved mail",
    "latency": "share by which p95 of an answer takes longer than the champion's",
    "safety": "share of outputs with a flag",
    "canary": "mean exposure of planted secrets in bits",
    "contamination": "share of judging chunks with a near copy in training",
    "benchmarks": "points lost on regression benchmarks",
    "feedback": "share of answers overridden beyond the champion's",
    "spot_check": "share of decided pairs in which the champion's answer was preferred",
    "cost": "price of the run",
}
"""What each rule's figure is, in the order in which the rules are asked."""

COUNTED = frozenset({"safety", "canary", "contamination", "cost"})
"""Rules whose figure stands by itself where it comes without bounds; any other is an estimate, of nothing without them."""


class Says(StrEnum):
    """What a rule says of a promotion."""

    PASSES = "passes"
    OBJECTS = "objects"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Objection:
    """What one rule says, and the sentence for people. ``threshold`` is None where the policy sets none."""

    name: str
    figure: float | None
    low: float | None
    high: float | None
    n: int
    threshold: float | None
    verdict: Says
    reason: str

    @property
    def interval(self) -> tuple[float, float] | None:
        """Lower and upper bound; None where either is unknown."""
        return None if self.low is None or self.high is None else (self.low, self.high)


def objections(figures: Iterable[Figure], policy: GateSettings) -> tuple[Objection, ...]:
    """What every rule says, in the order of :data:`ASKS`. Of several figures of a name the one that shows most harm
    counts; a name that is no rule is left to those who wrote it."""
    told: dict[str, list[Figure]] = {}
    for figure in figures:
        told.setdefault(figure.name, []).append(figure)
    return tuple(
        _objection(max(told.get(name, [_MISSING]), key=_harm), name, getattr(policy.limits, name), policy.least)
        for name in ASKS
    )


def _objection(seen: Figure, name: str, limit: float | None, least: LeastSettings) -> Objection:
    figure, low, high = finite(seen.figure), finite(seen.low), finite(seen.high)
    why = _why_absent(seen, limit, getattr(least, name, 0))
    if why or figure is None or limit is None:
        return Objection(name, figure, low, high, seen.n, limit, Says.ABSENT, f"{name}: not asked, as {why}")
    shown = figure if low is None else low
    says = Says.OBJECTS if shown > limit else Says.PASSES
    bounds = "" if low is None or high is None else f"bounds {low:.4g} and {high:.4g}; "
    judged = f"more than the {limit:g} allowed" if says is Says.OBJECTS else f"not shown to be more than {limit:g}"
    reason = f"{name}: {ASKS[name]}: {figure:.4g} ({bounds}n = {seen.n}), {judged}"
    return Objection(name, figure, low, high, seen.n, limit, says, reason)


def _why_absent(seen: Figure, limit: float | None, least: int) -> str:
    if seen.figure is None:
        return seen.reason or "nothing of it was measured"
    if not math.isfinite(seen.figure):
        return "its figure is not a finite number"
    if limit is None:
        return "the policy sets no limit"
    if finite(seen.low) is None and seen.name not in COUNTED:
        return "nothing is known of its error"
    if seen.n < least:
        return f"it was measured {seen.n} time{'' if seen.n == 1 else 's'}, and the policy wants {least}"
    return ""


def _harm(figure: Figure) -> float:
    shown = (finite(figure.low), finite(figure.figure), -math.inf)
    return next(value for value in shown if value is not None)


_MISSING = Figure("", None)
