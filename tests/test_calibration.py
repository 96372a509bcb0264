"""The gate keeps what its bounds promise, on challengers whose truth is known and threads as uneven as mail's."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from pipeline.config.settings import GateSettings
from registry.gate import Outcome, Ruling
from tests.bench.gate import Archive, verdicts
from tests.support.planted import Noise, Reign, Text, Truth, challenged, compared

POLICY = GateSettings()
NOISE = (Noise(0.10, 0.6), Noise(0.10, 0.6))
DRAWS = 600
FEWER_DRAWS = 250
STATED = 1 - POLICY.confidence
CHANCE = 4 * math.sqrt(STATED * (1 - STATED) / DRAWS)
"""What a share of so many draws may be off by."""


def threads(rng: np.random.Generator, count: int, name: str) -> list[Text]:
    """Chunks of threads whose lengths have a long tail, as a list's have: most of one or two chunks, a few of many."""
    return [
        Text(f"{name}{i}", int(rng.integers(40, 1500)))
        for i, size in enumerate(np.minimum(rng.zipf(2.0, count), 30))
        for _ in range(size)
    ]


def challenges(truth: Truth, new: int = 15, old: int = 60, policy: GateSettings = POLICY) -> Iterator[dict[str, Ruling]]:
    """Rulings by rule, and the outcome as ``verdict``, of challengers of that truth on mailboxes of their own."""
    rng = np.random.default_rng(17)
    for _ in range(DRAWS):
        verdict = challenged(rng, threads(rng, new, "n"), threads(rng, old, "o"), truth, NOISE, policy)
        yield {rule.name: rule.ruling for rule in verdict.rules}


@pytest.mark.parametrize("count", [6, 15, 40])
def test_an_equal_challenger_is_shown_to_be_worse_no_oftener_than_stated(count: int) -> None:
    failed = sum(rules["new"] is Ruling.FAIL for rules in challenges(Truth("equal", 0.0, 0.0), new=count))
    assert failed / DRAWS <= STATED + CHANCE
    assert failed, "never, so the bound is none"


@pytest.mark.parametrize("count", [15, 60])
def test_harm_of_just_the_margin_passes_no_oftener_than_stated(count: int) -> None:
    passed = sum(rules["old"] is Ruling.PASS for rules in challenges(Truth("margin", -0.1, POLICY.max_loss), old=count))
    assert passed / DRAWS <= STATED + CHANCE
    assert passed, "never, so the bound is none"


def test_a_lower_confidence_is_kept_too() -> None:
    lax = GateSettings(confidence=0.8)
    passed = sum(rules["old"] is Ruling.PASS for rules in challenges(Truth("margin", -0.1, lax.max_loss), policy=lax))
    assert STATED + CHANCE < passed / DRAWS <= 0.2 + 4 * math.sqrt(0.2 * 0.8 / DRAWS)


def outcomes(truth: Truth, new: int, old: int) -> dict[Outcome, float]:
    rng = np.random.default_rng(23)
    counts = Counter(
        challenged(rng, threads(rng, new, "n"), threads(rng, old, "o"), truth, NOISE, POLICY).outcome
        for _ in range(FEWER_DRAWS)
    )
    return {outcome: counts[outcome] / FEWER_DRAWS for outcome in Outcome}


def test_more_evidence_promotes_the_better_more_and_rejects_the_worse_more() -> None:
    sizes = [(8, 20), (20, 80), (60, 200)]
    better = [outcomes(Truth("better", -0.1, 0.0), *size) for size in sizes]
    promoted = [found[Outcome.PROMOTED] for found in better]
    assert promoted[0] < promoted[1] < promoted[2] and promoted[2] > 0.6
    assert all(found[Outcome.REJECTED] < 0.05 for found in better)
    forgetful = [outcomes(Truth("forgetful", -0.1, 0.1), *size) for size in sizes]
    rejected = [found[Outcome.REJECTED] for found in forgetful]
    assert rejected[0] < rejected[1] < rejected[2] and rejected[2] > 0.8
    assert all(found[Outcome.PROMOTED] < 0.02 for found in forgetful)


@pytest.mark.parametrize("worse", [0.0, 0.01])
def test_small_steps_back_do_not_add_up(worse: float) -> None:
    """Fifty challengers in a row on the same old text, most of which would be promoted were there no rule on old windows.
    Asked so often, a step beyond the margin may pass by chance; unchecked it would be fifty."""
    rng = np.random.default_rng(5)
    old = threads(rng, 300, "o")
    drifted, promoted = [], 0
    for _ in range(6):
        reign = Reign(rng, old, Noise(0.05, 0.3), POLICY)
        for _ in range(50):
            new = compared(rng, threads(rng, 15, "n"), -0.05, NOISE[0])
            promoted += reign.challenge(new, worse).outcome is Outcome.PROMOTED
        drifted.append(reign.drifted)
    assert promoted, "nobody was promoted, so nothing could drift"
    assert max(drifted) <= POLICY.max_drift + worse + 1e-9


def test_the_evidence_of_the_benchmark_is_like_that_of_a_run() -> None:
    """Threads of an archive, drawn into val and halved: new windows apart from old ones, and of the old a sample."""
    rng = np.random.default_rng(2)
    windows = tuple(tuple(threads(rng, 300, f"w{window}-")) for window in range(12))
    archive = Archive("made", windows)
    new, old = archive.evidence(rng, last=9, pooled=2)
    assert {text.thread.partition("-")[0] for text in new} == {"w8", "w9"}
    assert {text.thread.partition("-")[0] for text in old} == {f"w{window}" for window in range(8)}
    judging = len({text.thread for text in new})
    assert 10 <= judging <= 60, "a tenth of 600 threads, and half of those"
    shares = verdicts([archive], "steady topic", Truth("better", -0.05, 0.0), pooled=2, count=20)
    assert sum(shares[outcome] for outcome in Outcome) == pytest.approx(1.0)
    assert shares.new_threads == pytest.approx(30, rel=0.3)
