"""The gate: it promotes only what is better and harmless, abstains when it cannot tell, and says why with figures."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.settings import GateSettings
from pipeline.runs.harms import Figure
from registry.gate import Comparison, Evidence, Outcome, RuleOutcome, Ruling, Verdict, decide
from registry.objections import ASKS, COUNTED, Objection, Says

POLICY = GateSettings()
ORDER = [Outcome.REJECTED, Outcome.ABSTAINED, Outcome.PROMOTED]


def pairs(*per_thread: float, reference: str = "a-old", chunks: int = 3, unpaired: int = 0) -> Comparison:
    """A comparison in which thread ``i`` differs by ``per_thread[i]`` nats per token in each of its chunks."""
    rows = [(f"t{i}", value) for i, value in enumerate(per_thread) for _ in range(chunks)]
    return Comparison(
        reference,
        tuple(thread for thread, _ in rows),
        tuple(100 * value for _, value in rows),
        (100,) * len(rows),
        unpaired=unpaired,
    )


def around(mean: float, threads: int = 12, spread: float = 0.02, reference: str = "a-old") -> Comparison:
    """Threads evenly spaced about ``mean``."""
    return pairs(*np.linspace(mean - spread, mean + spread, threads), reference=reference)


def evidence(new: Comparison, old: Comparison | None = None, drift: Comparison | None = None) -> Evidence:
    return Evidence("a-new", "a-old", "a-old", new, old, drift)


def rule(verdict: Verdict, name: str) -> Ruling:
    return next(rule.ruling for rule in verdict.rules if rule.name == name)


def asked(verdict: Verdict) -> list[RuleOutcome]:
    return [rule for rule in verdict.rules if rule.ruling is not Ruling.ABSENT]


def test_better_on_new_and_harmless_on_old_is_promoted() -> None:
    verdict = decide(evidence(around(-0.1), around(0.0), around(0.02, reference="a-best")), POLICY)
    assert verdict.outcome is Outcome.PROMOTED
    assert [rule.name for rule in asked(verdict)] == ["champion", "new_threads", "new", "old", "drift"]
    assert all(rule.ruling is Ruling.PASS for rule in asked(verdict))
    assert len(verdict.reasons) == 3


def test_without_old_windows_their_rules_are_absent() -> None:
    verdict = decide(evidence(around(-0.1)), POLICY)
    assert verdict.outcome is Outcome.PROMOTED
    assert [rule.name for rule in asked(verdict)] == ["champion", "new_threads", "new"]


@pytest.mark.parametrize(
    ("new", "old", "drift", "outcome", "deciding"),
    [
        (around(+0.1), around(0.0), None, Outcome.REJECTED, "new"),
        (around(+0.001), around(0.0), None, Outcome.ABSTAINED, "new"),
        (around(-0.1), around(0.1), None, Outcome.REJECTED, "old"),
        (around(-0.1), around(0.025), None, Outcome.ABSTAINED, "old"),
        (around(-0.1), around(0.0), around(0.2), Outcome.REJECTED, "drift"),
        (around(-0.1), around(0.0), around(0.058), Outcome.ABSTAINED, "drift"),
        (pairs(-0.1, -0.1, -0.2, -0.1), around(0.0), None, Outcome.ABSTAINED, "new_threads"),
        (around(-0.1), pairs(), None, Outcome.ABSTAINED, "old"),
        (around(-0.1), pairs(-0.5), None, Outcome.ABSTAINED, "old"),
        (around(-0.1), replace(around(-0.1), unpaired=2), None, Outcome.ABSTAINED, "old"),
        (replace(around(-0.1), unpaired=1), around(0.0), None, Outcome.ABSTAINED, "new"),
    ],
)
def test_each_rule_decides_alone(
    new: Comparison, old: Comparison | None, drift: Comparison | None, outcome: Outcome, deciding: str
) -> None:
    verdict = decide(evidence(new, old, drift), POLICY)
    assert verdict.outcome is outcome
    assert [rule.name for rule in asked(verdict) if rule.ruling is not Ruling.PASS] == [deciding]
    assert len(verdict.reasons) == 1


def test_a_verdict_from_before_a_setting_is_read_as_it_was_meant() -> None:
    verdict = decide(evidence(around(-0.1)), POLICY)
    assert Verdict.from_json(verdict.to_json()) == verdict
    kept = json.loads(verdict.to_json())
    del kept["policy"]["confidence_better"]
    policy = Verdict.from_json(json.dumps(kept)).policy
    assert policy is not None and policy.confidence_better == 0.5


def test_better_on_new_must_be_as_sure_as_the_policy_asks() -> None:
    """Twelve threads evenly spaced from -0.024 to +0.016: the mean is -0.004, its error 0.0038, so 70 % bound -0.0019 and
    90 % bound +0.0012."""
    slightly = evidence(around(-0.004, spread=0.02), around(0.0))
    outcomes = {sure: decide(slightly, GateSettings(confidence_better=sure)).outcome for sure in (0.5, 0.7, 0.9)}
    assert outcomes == {0.5: Outcome.PROMOTED, 0.7: Outcome.PROMOTED, 0.9: Outcome.ABSTAINED}
    (reason,) = decide(slightly, GateSettings(confidence_better=0.9)).reasons
    assert reason.endswith("better in the mean, but not with a confidence of 90 %")


def test_reasons_hold_the_figures_the_margin_and_what_would_settle_it() -> None:
    verdict = decide(evidence(around(-0.1), around(0.025)), POLICY)
    (reason,) = verdict.reasons
    assert reason.startswith("old windows: +0.0250 nats per token against a-old (95 % bounds +0.0")
    assert "36 chunks in 12 threads, which is few" in reason
    assert "margin of 0.03; about 21 threads would settle it if the mean holds" in reason


def test_too_few_threads_or_another_champion_leave_nothing_to_decide_even_when_worse() -> None:
    worse = evidence(pairs(0.5, 0.6, 0.5), around(0.5))
    assert decide(worse, POLICY).outcome is Outcome.ABSTAINED
    overtaken = replace(evidence(around(0.3)), champion_now="a-other")
    verdict = decide(overtaken, POLICY)
    assert verdict.outcome is Outcome.ABSTAINED
    assert verdict.reasons[0] == "measured against a-old, but the champion is now a-other"


def test_an_objection_rejects_what_would_be_promoted() -> None:
    good = evidence(around(-0.1), around(0.0))
    tainted = Objection("lineage", 1, None, None, 0, 0, Says.OBJECTS, "it continues what was erased")
    verdict = decide(replace(good, objections=(tainted,)), POLICY)
    assert verdict.outcome is Outcome.REJECTED
    assert verdict.reasons == (tainted.reason,)
    assert rule(verdict, "lineage") is Ruling.FAIL


@pytest.mark.parametrize("name", ASKS)
def test_each_limited_rule_rejects_alone_when_its_lower_bound_is_above_the_limit(name: str) -> None:
    policy = GateSettings.model_validate({"limits": {name: 0.2}})
    good = evidence(around(-0.1), around(0.0))
    for figure, outcome in [
        (Figure(name, 0.5, 0.3, 0.7, 200), Outcome.REJECTED),
        (Figure(name, 0.5, 0.1, 0.9, 200), Outcome.PROMOTED),
        (Figure(name, 0.5, n=200), Outcome.REJECTED if name in COUNTED else Outcome.PROMOTED),
        (Figure(name, 0.2, n=200), Outcome.PROMOTED),
        (Figure(name, -0.5, -0.7, -0.3, 200), Outcome.PROMOTED),
    ]:
        verdict = decide(replace(good, figures=(figure,)), policy)
        assert verdict.outcome is outcome, figure
        absent = {rule.name for rule in verdict.rules if rule.ruling is Ruling.ABSENT}
        assert absent - {name} == set(ASKS) - {name}
        assert (name in absent) == (figure.low is None and name not in COUNTED)
        (asked,) = [rule for rule in verdict.rules if rule.name == name]
        assert (asked.figure, asked.low, asked.high) == (figure.figure, figure.low, figure.high)
        assert (asked.threshold, asked.n_chunks) == (0.2, 200)
        assert (asked.sentence in verdict.reasons) == (outcome is Outcome.REJECTED or asked.ruling is Ruling.PASS)
        assert Verdict.from_json(verdict.to_json()) == verdict


def test_a_better_adapter_with_a_worse_rule_is_rejected_and_an_absent_rule_changes_nothing() -> None:
    good, flagged = evidence(around(-0.1), around(0.0)), Figure("safety", 0.02, 0.001, 0.1, 120)
    assert decide(good, POLICY).outcome is Outcome.PROMOTED
    assert decide(replace(good, figures=(flagged,)), POLICY).outcome is Outcome.REJECTED
    too_few = decide(replace(good, figures=(replace(flagged, n=99),)), POLICY)
    assert too_few.outcome is Outcome.PROMOTED
    assert rule(too_few, "safety") is Ruling.ABSENT


def test_figures_that_cannot_be_judged_say_why() -> None:
    seen = (
        Figure("safety", 0.0, n=99),
        Figure("latency", None, reason="no champion answered beside it"),
        Figure("cost", 3.0, n=1),
        Figure("canary", float("nan"), n=9),
        Figure("made_up", 9.0, n=9),
    )
    verdict = decide(replace(evidence(around(-0.1)), figures=seen), POLICY)
    told = {rule.name: rule.sentence.partition("not asked, as ")[2] for rule in verdict.rules}
    assert told["safety"] == "it was measured 99 times, and the policy wants 100"
    assert told["latency"] == "no champion answered beside it"
    assert told["cost"] == "the policy sets no limit"
    assert told["canary"] == "its figure is not a finite number"
    assert told["rag"] == "nothing of it was measured"
    assert "made_up" not in told


def test_of_several_figures_the_one_that_shows_most_harm_counts() -> None:
    several = (
        Figure("benchmarks", 9.0, -1.0, 19.0, 50),
        Figure("benchmarks", 2.0, 1.5, 2.5, 50),
        Figure("benchmarks", None),
    )
    verdict = decide(replace(evidence(around(-0.1)), figures=several), POLICY)
    assert next(rule.figure for rule in verdict.rules if rule.name == "benchmarks") == 2.0
    assert verdict.outcome is Outcome.REJECTED


def test_a_policy_may_require_evidence_and_then_abstains_without_it() -> None:
    policy = GateSettings(require=("safety",))
    good = evidence(around(-0.1), around(0.0))
    verdict = decide(good, policy)
    assert verdict.outcome is Outcome.ABSTAINED
    assert verdict.reasons == ("safety: not asked, as nothing of it was measured, and the policy requires it",)
    assert decide(replace(good, figures=(Figure("safety", 0.0, 0.0, 0.03, 100),)), policy).outcome is Outcome.PROMOTED


def test_a_policy_that_requires_what_cannot_be_computed_is_refused() -> None:
    with pytest.raises(ValueError, match="rules that cannot be computed: smell"):
        GateSettings(require=("smell",))
    with pytest.raises(ValueError, match="for which limits sets nothing"):
        GateSettings(require=("cost",))


def test_the_smallest_detectable_difference_is_told() -> None:
    one_thread = decide(evidence(pairs(-0.1)), POLICY)
    assert one_thread.detectable is None
    many, few = decide(evidence(around(-0.1, threads=40)), POLICY), decide(evidence(around(-0.1, threads=8)), POLICY)
    assert many.detectable is not None and few.detectable is not None
    assert 0 < many.detectable < few.detectable


def test_a_verdict_survives_json() -> None:
    for seen in (evidence(around(-0.1), around(0.0)), evidence(pairs(0.1)), evidence(pairs())):
        verdict = decide(seen, POLICY)
        assert Verdict.from_json(verdict.to_json()) == verdict


comparisons = st.lists(
    st.tuples(st.sampled_from("abcdefghij"), st.floats(-0.5, 0.5), st.integers(1, 400)), min_size=1, max_size=30
).map(
    lambda rows: Comparison(
        "a-old", tuple(t for t, _, _ in rows), tuple(d * n for _, d, n in rows), tuple(n for _, _, n in rows)
    )
)


def shifted(compared: Comparison, nats_per_token: float) -> Comparison:
    return replace(
        compared,
        differences=tuple(d + nats_per_token * n for d, n in zip(compared.differences, compared.tokens, strict=True)),
    )


@given(comparisons, st.none() | comparisons, st.none() | comparisons)
def test_what_is_not_better_in_the_mean_is_never_promoted(
    new: Comparison, old: Comparison | None, drift: Comparison | None
) -> None:
    if decide(evidence(new, old, drift), POLICY).outcome is Outcome.PROMOTED:
        assert sum(new.differences) < 0
        assert old is None or sum(old.differences) / sum(old.tokens) <= POLICY.max_loss
        assert drift is None or sum(drift.differences) / sum(drift.tokens) <= POLICY.max_drift


@given(comparisons, comparisons, st.floats(0, 0.5))
def test_lower_losses_never_lower_the_verdict(new: Comparison, old: Comparison, gain: float) -> None:
    before = decide(evidence(new, old), POLICY).outcome
    after = decide(evidence(shifted(new, -gain), shifted(old, -gain)), POLICY).outcome
    assert ORDER.index(after) >= ORDER.index(before)


@given(comparisons, comparisons, st.floats(0, 0.2))
def test_wider_margins_never_lower_the_verdict(new: Comparison, old: Comparison, more: float) -> None:
    before = decide(evidence(new, old, old), POLICY).outcome
    tolerant = GateSettings(max_loss=POLICY.max_loss + more, max_drift=POLICY.max_drift + more)
    assert ORDER.index(decide(evidence(new, old, old), tolerant).outcome) >= ORDER.index(before)


@given(comparisons)
def test_challenger_and_champion_cannot_both_win_and_a_rejected_one_was_beaten(new: Comparison) -> None:
    swapped = replace(new, differences=tuple(-difference for difference in new.differences))
    here, there = decide(evidence(new), POLICY).outcome, decide(evidence(swapped), POLICY).outcome
    assert not here is there is Outcome.PROMOTED
    if here is Outcome.REJECTED:
        assert there is Outcome.PROMOTED


@given(comparisons, comparisons)
@settings(max_examples=50)
def test_the_order_of_chunks_does_not_matter(new: Comparison, old: Comparison) -> None:
    backwards = replace(new, threads=new.threads[::-1], differences=new.differences[::-1], tokens=new.tokens[::-1])
    assert decide(evidence(backwards, old), POLICY).outcome is decide(evidence(new, old), POLICY).outcome


def planted(rng: np.random.Generator, mean: float, threads: int, thread_spread: float) -> Comparison:
    """Chunks in threads of uneven length whose true difference is ``mean``, noisy by thread and by chunk.

    With 15 threads and a spread of 0.08 the standard error is about 0.03, as measured on mail.
    """
    lengths = np.minimum(rng.geometric(0.4, threads), 12)
    thread = np.repeat(np.arange(threads), lengths)
    tokens = rng.integers(80, 500, len(thread))
    each = mean + rng.normal(0, thread_spread, threads)[thread] + rng.normal(0, 0.06, len(thread))
    return Comparison("a-old", tuple(f"t{i}" for i in thread), tuple(each * tokens), tuple(int(count) for count in tokens))


def share_promoted(new_mean: float, old_mean: float, *, new_threads: int = 15, old_threads: int = 40) -> float:
    rng = np.random.default_rng(11)
    outcomes = [
        decide(
            evidence(planted(rng, new_mean, new_threads, 0.08), planted(rng, old_mean, old_threads, 0.05)), POLICY
        ).outcome
        for _ in range(1000)
    ]
    return outcomes.count(Outcome.PROMOTED) / len(outcomes)


def test_a_challenger_that_is_truly_worse_is_hardly_ever_promoted() -> None:
    assert share_promoted(+0.05, +0.05) < 0.02
    assert share_promoted(+0.05, 0.0) < 0.06
    assert share_promoted(-0.2, POLICY.max_loss) < 0.07


def test_a_challenger_that_is_truly_better_is_mostly_promoted() -> None:
    assert share_promoted(-0.1, -0.02) > 0.9
    assert share_promoted(-0.1, -0.02, new_threads=60, old_threads=120) > 0.99
