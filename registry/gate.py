"""Whether a new adapter becomes champion: a pure function of paired evidence and policy.

Losses are compared chunk by chunk on the same held-out text and pooled by thread. Differences are challenger minus
reference in nats per token, so negative is better. Each bound holds on its own at the policy's confidence (one-sided).
The margins are policy: the verdict repeats them beside the figures, so that a reader can disagree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter

from pipeline.config.settings import GateSettings
from pipeline.intervals import Interval, detectable, ratio_interval, t_quantile
from pipeline.runs.harms import Figure
from registry.objections import Objection, Says, objections
from registry.power import threads_for


class Outcome(StrEnum):
    """What becomes of a challenger; the values are the journal's events."""

    PROMOTED = "promoted"
    REJECTED = "rejected"
    ABSTAINED = "abstained"


class Ruling(StrEnum):
    """What one rule says: its condition holds, it is shown not to hold, or the evidence does not tell. ``absent`` is a rule
    that nothing was measured for and that the policy does not require."""

    PASS = "pass"
    FAIL = "fail"
    OPEN = "open"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Challenger and reference on the same chunks: three sequences in parallel, one entry a chunk.

    ``differences`` are summed nats of the challenger minus the reference's, over ``tokens`` predicted tokens, and
    ``nats`` those of the reference. ``unpaired`` counts chunks that the challenger was scored on and the reference not.
    """

    reference: str
    threads: tuple[str, ...]
    differences: tuple[float, ...]
    tokens: tuple[int, ...]
    nats: tuple[float, ...] = ()
    unpaired: int = 0

    @property
    def before(self) -> float | None:
        """The reference's nats per token; None without a chunk."""
        return sum(self.nats) / sum(self.tokens) if self.nats else None

    @property
    def after(self) -> float | None:
        """The challenger's nats per token; None without a chunk."""
        return (sum(self.nats) + sum(self.differences)) / sum(self.tokens) if self.nats else None

    @property
    def n_threads(self) -> int:
        return len(set(self.threads))


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that the gate may look at.

    ``champion`` is whom the run was asked to challenge and ``champion_now`` who reigns as the verdict falls (the base's
    name where there is no champion). ``new`` and ``old`` compare with that champion on windows that only the challenger
    learned, and on windows that the champion had learned (None: there are none). ``drift`` compares on those old windows
    with the best untainted adapter ever (None: it is the champion). ``objections`` stand whatever the policy; ``figures``
    are held against its limits.
    """

    challenger: str
    champion: str
    champion_now: str
    new: Comparison
    old: Comparison | None = None
    drift: Comparison | None = None
    objections: tuple[Objection, ...] = ()
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True, slots=True)
class RuleOutcome:
    """One rule, its figure with one-sided bounds (None where unknown), and its ruling in a sentence. ``n_chunks`` counts
    what was measured: chunks, or for objections what :mod:`registry.objections` names."""

    name: str
    figure: float | None
    low: float | None
    high: float | None
    threshold: float | None
    n_chunks: int
    n_threads: int
    ruling: Ruling
    sentence: str


EARLIER = {"confidence_better": 0.5}
"""What a policy meant that was kept before a setting was there, where that is not the setting's default."""


def _as_kept(policy: Any) -> Any:
    return {**EARLIER, **policy} if isinstance(policy, dict) else policy


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome, every rule that was asked, the reasons that decided, and what was within reach of the evidence.

    ``detectable`` is the smallest true difference on the new windows that this evidence would show in four of five
    repetitions, in nats per token (None: any difference could hide). ``policy`` is what it was decided under (None in
    verdicts of versions that did not keep it).
    """

    outcome: Outcome
    rules: tuple[RuleOutcome, ...]
    reasons: tuple[str, ...]
    detectable: float | None
    policy: Annotated[GateSettings | None, BeforeValidator(_as_kept)] = None

    def to_json(self) -> str:
        return _VERDICT.dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Verdict:
        """Reads what :meth:`to_json` wrote; raises ``pydantic.ValidationError`` on anything else."""
        return _VERDICT.validate_json(text)


_VERDICT = TypeAdapter(Verdict)
_RULINGS = {Says.PASSES: Ruling.PASS, Says.OBJECTS: Ruling.FAIL, Says.ABSENT: Ruling.ABSENT}


def decide(evidence: Evidence, policy: GateSettings) -> Verdict:
    """Promotes what is better on new mail and not worse on old, rejects what is shown to be worse, else abstains.

    Too few new threads, or another champion than the one challenged, leave nothing to decide on, whatever the figures.
    """
    new = paired_interval(evidence.new, policy)
    preconditions = [_same_champion(evidence), _enough_threads(evidence.new, policy)]
    rules = [_better_on_new(evidence.new, new, policy)]
    if evidence.old is not None:
        rules.append(_not_worse("old", "old windows", evidence.old, policy.max_loss, policy))
    if evidence.drift is not None:
        rules.append(_not_worse("drift", "old windows, best adapter so far", evidence.drift, policy.max_drift, policy))
    rules += [_objecting(objection) for objection in evidence.objections]
    rules += [_limited(objection, policy) for objection in objections(evidence.figures, policy)]

    asked = tuple(preconditions + rules)
    if any(rule.ruling is not Ruling.PASS for rule in preconditions):
        outcome, deciding = Outcome.ABSTAINED, Ruling.OPEN
    elif any(rule.ruling is Ruling.FAIL for rule in rules):
        outcome, deciding = Outcome.REJECTED, Ruling.FAIL
    elif all(rule.ruling in (Ruling.PASS, Ruling.ABSENT) for rule in rules):
        outcome, deciding = Outcome.PROMOTED, Ruling.PASS
    else:
        outcome, deciding = Outcome.ABSTAINED, Ruling.OPEN
    within_reach = detectable(new, confidence=policy.confidence) if new else math.inf
    return Verdict(
        outcome=outcome,
        rules=asked,
        # That the question could be asked at all is no reason to promote.
        reasons=tuple(rule.sentence for rule in (rules if deciding is Ruling.PASS else asked) if rule.ruling is deciding),
        detectable=within_reach if math.isfinite(within_reach) else None,
        policy=policy,
    )


def paired_interval(pairs: Comparison, policy: GateSettings) -> Interval | None:
    """Difference in nats per token with a lower and an upper bound, each one-sided at the policy's confidence; None
    without a chunk."""
    return ratio_interval(
        pairs.differences,
        pairs.tokens,
        pairs.threads,
        confidence=2 * policy.confidence - 1,
        few_below=policy.min_threads,
    )


def bound_on_better(found: Interval, policy: GateSettings) -> float:
    """The upper bound of the difference on new windows at ``policy.confidence_better``, in nats per token: the mean itself
    at 0.5, and infinite where the error is unknown."""
    if policy.confidence_better == 0.5:
        return found.value
    return found.value + t_quantile(policy.confidence_better, found.df) * found.error if found.df else math.inf


def _same_champion(evidence: Evidence) -> RuleOutcome:
    if evidence.champion == evidence.champion_now:
        ruling, sentence = Ruling.PASS, f"the champion is still {evidence.champion}"
    else:
        ruling = Ruling.OPEN
        sentence = f"measured against {evidence.champion}, but the champion is now {evidence.champion_now}"
    return RuleOutcome("champion", None, None, None, None, 0, 0, ruling, sentence)


def _enough_threads(pairs: Comparison, policy: GateSettings) -> RuleOutcome:
    count, needed = pairs.n_threads, policy.min_new_threads
    ruling = Ruling.PASS if count >= needed else Ruling.OPEN
    sentence = f"new windows: {_count(count, 'val thread')}, at least {needed} needed"
    return RuleOutcome("new_threads", count, None, None, needed, len(pairs.threads), count, ruling, sentence)


def _better_on_new(pairs: Comparison, found: Interval | None, policy: GateSettings) -> RuleOutcome:
    where = "new windows"
    if found is None or pairs.unpaired:
        return _unmeasured("new", where, pairs, 0.0)
    figures = _figures(found, pairs.reference, policy)
    sure = f"{100 * policy.confidence_better:g} %"
    if found.low > 0:
        ruling, says = Ruling.FAIL, "shown to be worse, as its lower bound is above 0"
    elif found.value < 0 and bound_on_better(found, policy) <= 0:
        ruling, says = Ruling.PASS, f"better with a confidence of {sure}"
    elif found.value < 0:
        ruling, says = Ruling.OPEN, f"better in the mean, but not with a confidence of {sure}"
    else:
        ruling, says = Ruling.OPEN, "not better in the mean, and not shown to be worse"
    return _measured("new", found, 0.0, ruling, f"{where}: {figures}: {says}")


def _not_worse(name: str, where: str, pairs: Comparison, margin: float, policy: GateSettings) -> RuleOutcome:
    """Non-inferiority: the upper bound must not pass the margin; a lower bound above it shows the opposite."""
    found = paired_interval(pairs, policy)
    if found is None or (pairs.unpaired and name == "old"):
        return _unmeasured(name, where, pairs, margin)
    figures = _figures(found, pairs.reference, policy)
    if found.high <= margin:
        ruling, says = Ruling.PASS, f"within the margin of {margin:g}"
    elif found.low > margin:
        ruling, says = Ruling.FAIL, f"shown to be worse than the margin of {margin:g} allows"
    else:
        ruling, says = (
            Ruling.OPEN,
            f"its upper bound is above the margin of {margin:g}{_would_settle(found, margin, policy)}",
        )
    return _measured(name, found, margin, ruling, f"{where}: {figures}: {says}")


def _would_settle(found: Interval, margin: float, policy: GateSettings) -> str:
    """How many threads would bring the upper bound to the margin if the mean held."""
    threads = threads_for(found, margin - found.value, confidence=policy.confidence)
    return f"; about {threads} threads would settle it if the mean holds" if threads is not None else ""


def _measured(name: str, found: Interval, threshold: float, ruling: Ruling, sentence: str) -> RuleOutcome:
    low, high = found.bounds
    return RuleOutcome(name, found.value, low, high, threshold, found.n, found.n_clusters, ruling, sentence)


def _unmeasured(name: str, where: str, pairs: Comparison, threshold: float) -> RuleOutcome:
    paired = len(pairs.threads)
    if pairs.unpaired:
        says = f"{pairs.unpaired} of {paired + pairs.unpaired} chunks have no loss of {pairs.reference} to compare with"
    else:
        says = f"no val chunk to compare with {pairs.reference} on"
    sentence = f"{where}: {says}"
    return RuleOutcome(name, None, None, None, threshold, paired, pairs.n_threads, Ruling.OPEN, sentence)


def _objecting(objection: Objection) -> RuleOutcome:
    return RuleOutcome(
        objection.name,
        objection.figure,
        objection.low,
        objection.high,
        objection.threshold,
        objection.n,
        0,
        _RULINGS[objection.verdict],
        objection.reason,
    )


def _limited(objection: Objection, policy: GateSettings) -> RuleOutcome:
    """An objection under a policy that may require its evidence."""
    rule = _objecting(objection)
    if rule.ruling is Ruling.ABSENT and rule.name in policy.require:
        return replace(rule, ruling=Ruling.OPEN, sentence=f"{rule.sentence}, and the policy requires it")
    return rule


def _figures(found: Interval, reference: str, policy: GateSettings) -> str:
    few = ", which is few" if found.few else ""
    bounds = "bounds unknown"
    if math.isfinite(found.low):
        bounds = f"{100 * policy.confidence:g} % bounds {found.low:+.4f} and {found.high:+.4f}"
    return (
        f"{found.value:+.4f} nats per token against {reference} "
        f"({bounds}; {_count(found.n, 'chunk')} in {_count(found.n_clusters, 'thread')}{few})"
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
