"""Whether near copies across splits are found, what is called one that is none, and what it costs.

Planted copies are made of real mails by replacing words until the Jaccard index of their runs of five words is what was
wanted, evenly from 0.7 to 0.95. What else is found among mails of different threads is compared word for word: it is a
false alarm unless the pair is alike.
"""

from __future__ import annotations

import random
import resource
import time
from pathlib import Path

import numpy as np

from pipeline.copies.minhash import LIKELY, agreement, bands_of, candidates, signatures
from pipeline.copies.shingles import LEAST_WORDS, RUN, likeness, runs, words_of
from pipeline.parsing.mail import parse_mail
from tests.bench.corpora import ARCHIVES, archive
from tests.bench.rows import BenchRow

PLANTED = 100
CHUNKS = 200_000
AT_ONCE = 256


def bench_contamination(data: Path, quick: bool = False) -> list[BenchRow]:
    """Found of 100 planted copies, false alarms among real mails, and the time and memory for 200,000 texts."""
    texts = _texts(data)
    rng = random.Random(1)
    held = rng.sample([text for text in texts if 60 <= len(words_of(text)) <= 400], 2_000)
    copies = [_copy(text, 0.7 + 0.25 * place / (PLANTED - 1), rng) for place, text in enumerate(held[:PLANTED])]
    true = [likeness(text, copy).jaccard for text, copy in zip(held, copies, strict=False)]
    others = [*copies, *(text for text in texts if text not in set(held))]
    pairs = _found(held, others)
    hits = {ours for ours, theirs in pairs if ours == theirs and ours < PLANTED}
    near = [(ours, theirs) for ours, theirs in pairs if not (ours == theirs and ours < PLANTED)]
    confirmed = [pair for pair in near if likeness(held[pair[0]], others[pair[1]]).near_copy]
    alarms = {ours for ours, _ in confirmed if not any(_alike(held[ours], others[t]) for o, t in confirmed if o == ours)}
    share = len(alarms) / len(held)
    note = f"{len(held)} held-out mails against {len(others)}; Jaccard of the planted {min(true):.2f} to {max(true):.2f}"
    real = len({ours for ours, _ in confirmed} - alarms)
    told = (
        f"{real} of the {len(held)} mails have a real near copy elsewhere; {len(near) - len(confirmed)} candidates refused"
    )
    return [
        BenchRow(
            "planted near copies found",
            sum(likeness(held[place], copies[place]).near_copy for place in hits),
            "copies",
            "all",
            PLANTED,
            len(hits) / PLANTED,
            "at least 98 of 100",
            len(hits) >= 98,
            note,
        ),
        BenchRow("called near copies that are none", share, "share", "", None, None, "under 0.001", share < 0.001, told),
        _bulk(texts, 20_000 if quick else CHUNKS),
    ]


def _alike(ours: str, theirs: str) -> bool:
    """Jaccard of at least half, or one held in the other: what a reader would call a copy."""
    one, other = runs(words_of(ours), RUN), runs(words_of(theirs), RUN)
    return len(one & other) >= 0.5 * min(len(one), len(other))


def _found(held: list[str], others: list[str]) -> list[tuple[int, int]]:
    ours, theirs = _signed(held), _signed(others)
    places = candidates(bands_of(ours), bands_of(theirs))
    alike = agreement(ours[places[:, 0]], theirs[places[:, 1]])
    return [(int(a), int(b)) for (a, b), likely in zip(places, alike >= LIKELY, strict=True) if likely]


def _signed(texts: list[str]) -> np.ndarray:
    return np.concatenate([signatures(texts[start : start + AT_ONCE]) for start in range(0, len(texts), AT_ONCE)])


def _bulk(texts: list[str], n: int) -> BenchRow:
    """Signs ``n`` texts of real words, each another one, and compares a fifth of them with all, as a first import does."""
    rng = random.Random(2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    parts = []
    for start in range(0, n, AT_ONCE):
        batch = [f"{rng.choice(texts)}\n{start + place} {rng.random()}" for place in range(min(AT_ONCE, n - start))]
        parts.append(signatures(batch))
    found = np.concatenate(parts)
    bands = bands_of(found)
    held = np.ascontiguousarray(bands[:, : n // 5])
    pairs = len(candidates(held, bands))
    took = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    memory = f"peak of the process {peak:.2f} GiB, {before / 2**20:.2f} before"
    note = f"{n} texts, a fifth of them held out, {pairs} candidates; CPU time of one core; {memory}"
    met = took < 120 * n / CHUNKS and peak < 2.0
    return BenchRow("MinHash over 200,000 chunks", took * CHUNKS / n, "s", "", None, None, "under 120 s, 2 GB", met, note)


def _copy(text: str, wanted: float, rng: random.Random) -> str:
    """The text with words replaced one by one until its Jaccard index falls to what is wanted, or would fall below."""
    words = words_of(text)
    original = runs(words, RUN)
    places = list(range(len(words)))
    rng.shuffle(places)
    for place in places:
        changed = [*words[:place], f"w{rng.randint(0, 10**9)}", *words[place + 1 :]]
        now = runs(changed, RUN)
        if len(original & now) / len(original | now) < max(wanted, 0.7):
            continue
        words = changed
        if len(original & now) / len(original | now) < wanted + 0.01:
            break
    return " ".join(words)


def _texts(data: Path) -> list[str]:
    """Own words of every mail that is long enough to be compared."""
    found = []
    for name in ARCHIVES:
        for raw in archive(data, name):
            mail = parse_mail(raw)
            words = mail.own_text if mail.own_text.strip() else mail.text
            if len(words_of(words)) >= LEAST_WORDS:
                found.append(words)
    return list(dict.fromkeys(found))
