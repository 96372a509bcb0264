"""The gate on planted truth: how often it errs with evidence of the sizes that real mail gives.

Threads, chunks and windows are those of real archives, split and halved as a run does it; only the losses are drawn
(``tests/support/planted.py``). So every row is a share of simulated verdicts, the same on any machine.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.config.settings import EvalSettings, GateSettings, ReplaySettings, SplitSettings
from pipeline.home import Home
from pipeline.sampling.halves import gating_threads
from pipeline.store import Store
from registry.gate import Comparison, Outcome
from tests.bench.program import mailtide, run
from tests.bench.rows import BenchRow
from tests.conftest import data_folder
from tests.support.planted import Noise, Reign, Text, Truth, challenged, compared

ARCHIVES = ("linux-mips-1996-2001", "linux-mips-2006-2007", "r-package-devel-2015-2026")
POLICY = GateSettings()
WINDOWS = ReplaySettings().max_new_windows
"""New windows that a run pools at most, which it does after abstentions."""
PAIRS = 1_000
SEED = 1

STEADY, SHIFTED = "steady topic", "change of topic"
NOISE = {
    STEADY: (Noise(0.10, 0.6), Noise(0.10, 0.6)),
    SHIFTED: (Noise(0.40, 0.6), Noise(0.20, 0.6)),
}
"""On new and on old windows. Standard errors that follow are those seen in runs on mailing lists (docs/evaluation.md)."""
TRUTHS = {
    STEADY: (
        Truth("better", -0.05, 0.0),
        Truth("equal", 0.0, 0.0),
        Truth("worse on new", 0.05, 0.0),
        Truth("forgetful", -0.05, 0.10),
    ),
    SHIFTED: (
        Truth("better", -0.50, 0.0),
        Truth("equal", 0.0, 0.0),
        Truth("worse on new", 0.50, 0.0),
        Truth("forgetful", -0.50, 0.40),
    ),
}
"""What a window teaches, and what runs without enough rehearsal forgot, in nats per token (docs/evaluation.md, Noise)."""
STEPS, CHAINS = 50, 200
CREEPS = (0.0, 0.005, 0.01, 0.02)


@dataclass(frozen=True, slots=True)
class Archive:
    """The chunks of an imported archive, by window, with the threads they are of."""

    name: str
    windows: tuple[tuple[Text, ...], ...]

    def evidence(self, rng: np.random.Generator, last: int, pooled: int) -> tuple[list[Text], list[Text]]:
        """New and old held-out chunks of a run that takes ``pooled`` windows up to ``last`` as new: a thread is of val with
        the share that it is by default, the half judges where there are enough, and of the old ones there is a sample."""
        share = SplitSettings().val
        seen = [text for window in self.windows[: last + 1] for text in window]
        threads = {text.thread for text in seen}
        val = {thread for thread, drawn in zip(sorted(threads), rng.random(len(threads)), strict=True) if drawn < share}
        judging = gating_threads(val, POLICY.min_threads)
        val = val if judging is None else set(judging)
        parts = []
        for windows in (self.windows[last + 1 - pooled : last + 1], self.windows[: last + 1 - pooled]):
            parts.append([text for window in windows for text in window if text.thread in val])
        new, old = parts
        kept = rng.permutation(len(old))[: EvalSettings().max_chunks]
        return new, [old[place] for place in sorted(kept)]


@dataclass(frozen=True, slots=True)
class Shares:
    """Of so many verdicts, how many of each outcome; and how many threads judged, in the mean."""

    counts: Counter[Outcome]
    new_threads: float
    old_threads: float

    def __getitem__(self, outcome: Outcome) -> float:
        return self.counts[outcome] / self.counts.total()


def bench_gate(data: Path, *, quick: bool = False) -> list[BenchRow]:
    """Wrong verdicts on 1,000 challengers of each kind, how bounds hold where it is hardest, and fifty small steps back."""
    pairs = PAIRS // 10 if quick else PAIRS
    with tempfile.TemporaryDirectory() as folder:
        archives = [imported(data, Path(folder), name) for name in (ARCHIVES[:1] if quick else ARCHIVES)]
    rows = [row for regime in NOISE for row in verdict_rows(archives, regime, pairs)]
    rows += bound_rows(archives, pairs)
    return rows + drift_rows(archives, CHAINS // 10 if quick else CHAINS)


def imported(data: Path, folder: Path, name: str) -> Archive:
    """Imports an archive with default settings, its windows closing as when it was live."""
    home = folder / name
    run(mailtide(home, "init"))
    run(mailtide(home, "import", str(data / f"{name}.mbox.gz"), "--clock", "header"))
    with Store.open(Home(home), None, None) as store:
        found = store.query("SELECT window_idx, thread_id, n_tokens FROM assignments ORDER BY window_idx, chunk_id")
    windows: list[list[Text]] = [[] for _ in range(max(window for window, _, _ in found) + 1)]
    for window, thread, tokens in found:
        windows[window].append(Text(thread, tokens))
    return Archive(name, tuple(map(tuple, windows)))


def verdicts(archives: Sequence[Archive], regime: str, truth: Truth, pooled: int, count: int) -> Shares:
    """Verdicts on ``count`` challengers, each at a random moment of a random archive."""
    rng = generator(regime, truth.name, pooled)
    counts: Counter[Outcome] = Counter()
    threads = np.zeros(2)
    for _ in range(count):
        archive = one_of(rng, archives)
        new, old = archive.evidence(rng, int(rng.integers(pooled, len(archive.windows))), pooled)
        counts[challenged(rng, new, old, truth, NOISE[regime], POLICY).outcome] += 1
        threads += [len({text.thread for text in part}) for part in (new, old)]
    return Shares(counts, *(threads / count))


def verdict_rows(archives: Sequence[Archive], regime: str, pairs: int) -> list[BenchRow]:
    """A row per kind of challenger, its windows pooled as far as a run pools them."""
    rows = []
    for truth in TRUTHS[regime]:
        found = verdicts(archives, regime, truth, WINDOWS, pairs)
        wrong, goal, limit = {
            "better": (Outcome.REJECTED, "under 0.05", 0.05),
            "equal": (Outcome.REJECTED, "at most 0.1: two bounds of 95 %", 0.10),
        }.get(truth.name, (Outcome.PROMOTED, "under 0.02", 0.02))
        rest = ", ".join(f"{100 * found[outcome]:.1f} % {outcome.value}" for outcome in Outcome)
        planted = f"{truth.new:+g} on new and {truth.old:+g} on old, nats per token"
        note = f"{planted}; {rest}; {found.new_threads:.0f} new and {found.old_threads:.0f} old threads in the mean"
        name = f"gate, {regime}: {truth.name} challengers {wrong.value}"
        met = bool(found[wrong] < limit)
        rows.append(BenchRow(name, found[wrong], f"of {pairs:,}", "", None, None, goal, met, note))
    return rows


def bound_rows(archives: Sequence[Archive], pairs: int) -> list[BenchRow]:
    """How often a bound is on the wrong side of the truth where the truth is just where it must not pass."""
    stated = 1 - POLICY.confidence
    rows = []
    for regime, noise in NOISE.items():
        for name, truth, which in (
            ("an equal challenger shown to be worse on new", Truth("equal", 0.0, 0.0), "new"),
            ("harm of just the margin passes on old", Truth("margin", -0.05, POLICY.max_loss), "old"),
        ):
            rng = generator(regime, name, WINDOWS)
            wrong = asked = 0
            while asked < 2 * pairs:
                archive = one_of(rng, archives)
                new, old = archive.evidence(rng, int(rng.integers(WINDOWS, len(archive.windows))), WINDOWS)
                rules = {rule.name: rule for rule in challenged(rng, new, old, truth, noise, POLICY).rules}
                if which in rules and rules[which].low is not None:
                    asked += 1
                    wrong += rules[which].ruling.value == ("fail" if which == "new" else "pass")
            share = wrong / asked
            allowed = stated + 3 * math.sqrt(stated * (1 - stated) / asked)
            goal = f"at most {stated:.2f} as stated, {allowed:.3f} with what so many draws vary by"
            note = f"truth {truth.new:+g} on new and {truth.old:+g} on old; bounds of {100 * POLICY.confidence:g} % each"
            unit, met = f"of {asked:,}", share <= allowed
            rows.append(
                BenchRow(f"gate, {regime}: {name}", share, unit, "as stated", stated, share / stated, goal, met, note)
            )
    return rows


def drift_rows(archives: Sequence[Archive], chains: int) -> list[BenchRow]:
    """Fifty challengers in a row, each truly a little worse on old windows than the champion it would replace."""
    rows = []
    for worse in CREEPS:
        rng = generator("drift", f"{worse}", WINDOWS)
        drifted, promoted = [], 0
        for _ in range(chains):
            archive = one_of(rng, archives)
            new, old = archive.evidence(rng, int(rng.integers(2 * WINDOWS, len(archive.windows))), WINDOWS)
            reign = Reign(rng, old, NOISE[STEADY][1], POLICY)
            for _ in range(STEPS):
                verdict = reign.challenge(lesson(rng, new), worse)
                promoted += verdict.outcome is Outcome.PROMOTED
            drifted.append(reign.drifted)
        most = float(np.quantile(drifted, 0.95))
        note = (
            f"95 % of {chains} chains stay below it, mean {np.mean(drifted):.3f}, most {max(drifted):.3f}; "
            f"{promoted / chains:.1f} of {STEPS} promoted; unchecked it would be {worse * STEPS:g}"
        )
        name = f"gate: {STEPS} challengers, each {worse:g} worse on old"
        goal = f"under gate.max_drift, {POLICY.max_drift:g}"
        rows.append(BenchRow(name, most, "nats per token", "", None, None, goal, most < POLICY.max_drift, note))
    return rows


def lesson(rng: np.random.Generator, new: Sequence[Text]) -> Comparison:
    """What a challenger of a steady topic shows on new windows: better, as a run is that learned something."""
    return compared(rng, new, TRUTHS[STEADY][0].new, NOISE[STEADY][0])


def power_table(archives: Sequence[Archive], count: int, pooled: Sequence[int] = (5, 10, 20, 40)) -> list[str]:
    """Percent promoted and rejected of each kind of challenger, by windows pooled: the table of docs/evaluation.md."""
    sizes: dict[int, list[tuple[float, float]]] = {windows: [] for windows in pooled}
    kinds = []
    for regime, truths in TRUTHS.items():
        for truth in truths:
            cells = []
            for windows in pooled:
                found = verdicts(archives, regime, truth, windows, count)
                sizes[windows].append((found.new_threads, found.old_threads))
                cells.append(f"{100 * found[Outcome.PROMOTED]:.1f} / {100 * found[Outcome.REJECTED]:.1f}")
            kinds.append(f"| {regime} | {truth.name} | {truth.new:+g} | {truth.old:+g} | {' | '.join(cells)} |")
    judging = [f"{new:.0f} / {old:.0f}" for new, old in (np.mean(sizes[windows], axis=0) for windows in pooled)]
    return [
        f"| | challenger | new | old | {' | '.join(f'{windows} windows' for windows in pooled)} |",
        f"|---|---|---:|---:|{'---:|' * len(pooled)}",
        f"| new / old threads that judge | | | | {' | '.join(judging)} |",
        *kinds,
    ]


def one_of(rng: np.random.Generator, archives: Sequence[Archive]) -> Archive:
    return archives[int(rng.integers(len(archives)))]


def generator(*name: object) -> np.random.Generator:
    """Random numbers of their own for each question, the same in any order of asking."""
    digest = hashlib.sha256(":".join(map(str, (SEED, *name))).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def main(arguments: Sequence[str]) -> int:
    """``python -m tests.bench.gate [COUNT]`` prints the table of docs/evaluation.md."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gate", description="Prints verdicts by size of evidence.")
    parser.add_argument("count", type=int, nargs="?", default=PAIRS, help="challengers of each kind and size")
    data = data_folder()
    if data is None:
        parser.error("needs the folder of real mail: set MAILTIDE_DATA to one")
    with tempfile.TemporaryDirectory() as folder:
        archives = [imported(data, Path(folder), name) for name in ARCHIVES]
    print("\n".join(power_table(archives, parser.parse_args(arguments).count)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
