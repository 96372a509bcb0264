"""Challengers whose truth is known: paired losses drawn about a planted difference, clustered by thread as losses are.

A chunk's difference is the planted one, plus what its thread has in common, plus its own. Threads differ with heavy tails
(Student's t with five degrees of freedom); a chunk's own part falls with the root of its tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.config.settings import GateSettings
from registry.gate import Comparison, Evidence, Verdict, decide

TAILS = 5
"""Degrees of freedom of the threads' differences."""


@dataclass(frozen=True, slots=True)
class Text:
    """A held-out chunk, as far as the gate sees it."""

    thread: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Noise:
    """Spread of a paired difference in nats per token: between threads, and of a chunk of one token (a chunk of n tokens
    has a root of n less)."""

    thread: float
    chunk: float


@dataclass(frozen=True, slots=True)
class Truth:
    """What a challenger truly differs by on new and on old windows, in nats per token; negative is better."""

    name: str
    new: float
    old: float


def compared(
    rng: np.random.Generator, texts: Sequence[Text], true: float, noise: Noise, reference: str = "champion"
) -> Comparison:
    """One adapter against another on ``texts``, truly different by ``true``."""
    names = sorted({text.thread for text in texts})
    common = dict(zip(names, noise.thread * unit_t(rng, len(names)), strict=True))
    own = rng.normal(size=len(texts)) * noise.chunk
    return Comparison(
        reference,
        tuple(text.thread for text in texts),
        tuple(
            text.tokens * (true + common[text.thread] + float(part) / math.sqrt(text.tokens))
            for text, part in zip(texts, own, strict=True)
        ),
        tuple(text.tokens for text in texts),
    )


def unit_t(rng: np.random.Generator, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Heavy-tailed numbers of standard deviation one."""
    return rng.standard_t(TAILS, count) * math.sqrt((TAILS - 2) / TAILS)


def challenged(
    rng: np.random.Generator,
    new: Sequence[Text],
    old: Sequence[Text],
    truth: Truth,
    noise: tuple[Noise, Noise],
    policy: GateSettings,
) -> Verdict:
    """The verdict on a challenger of that truth; ``noise`` is that of new and of old windows."""
    evidence = Evidence("challenger", "champion", "champion", compared(rng, new, truth.new, noise[0]))
    if old:
        evidence = replace(evidence, old=compared(rng, old, truth.old, noise[1]))
    return decide(evidence, policy)


@dataclass
class Reign:
    """A champion after another on the same old windows. ``truth`` is each adapter's true loss there less the first's, and
    ``parts`` its own differences by thread and chunk, which stay with it: the same text judges all of them, so that who
    was lucky on it once stays so."""

    rng: np.random.Generator
    old: Sequence[Text]
    noise: Noise
    policy: GateSettings

    def __post_init__(self) -> None:
        self.champion, self.best = 0, 0
        self.truth: list[float] = []
        self.losses: list[list[float]] = []
        self._born(0.0)

    @property
    def drifted(self) -> float:
        """How much worse the champion truly is than the best that ever reigned, in nats per token."""
        return self.truth[self.champion] - min(self.truth[adapter] for adapter in self.reigned)

    @property
    def reigned(self) -> list[int]:
        return [*dict.fromkeys(self._reigned)]

    def challenge(self, new: Comparison, worse: float) -> Verdict:
        """Asks the gate about a challenger truly ``worse`` on old windows than the champion; it reigns if promoted."""
        challenger = self._born(self.truth[self.champion] + worse)
        evidence = Evidence("challenger", "champion", "champion", new, self._pair(challenger, self.champion))
        if self.best != self.champion:
            evidence = replace(evidence, drift=self._pair(challenger, self.best))
        verdict = decide(evidence, self.policy)
        if verdict.outcome.value == "promoted":
            self.champion = challenger
            self._reigned.append(challenger)
            self.best = min(self.reigned, key=lambda adapter: sum(self.losses[adapter]))
        return verdict

    def _born(self, true: float) -> int:
        noise = Noise(self.noise.thread / math.sqrt(2), self.noise.chunk / math.sqrt(2))
        self.truth.append(true)
        self.losses.append(list(compared(self.rng, self.old, true, noise).differences))
        if len(self.truth) == 1:
            self._reigned = [0]
        return len(self.truth) - 1

    def _pair(self, one: int, other: int) -> Comparison:
        return Comparison(
            f"adapter {other}",
            tuple(text.thread for text in self.old),
            tuple(a - b for a, b in zip(self.losses[one], self.losses[other], strict=True)),
            tuple(text.tokens for text in self.old),
        )
