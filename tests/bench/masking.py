"""How much of what people should not have mailed is masked, what else is, and what it costs.

Planted credentials of twenty kinds go into the words of real mails, a mail each. What is masked beyond them is judged by
hand: the digests of what was found to be a secret indeed are listed below, everything else counts as a false alarm. The
forms of the planted ones were written by the same people as the masks, so recall says that known forms are found in real
text, not that every form is known: the second row is what people write too and no form tells.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pipeline.config.settings import PrivacySettings
from pipeline.parsing.mail import parse_mail
from pipeline.privacy.credentials import Mark
from pipeline.privacy.detectors import find_detected
from pipeline.privacy.scrub import find_credentials, masker
from tests.bench.corpora import ARCHIVES, archive
from tests.bench.rows import BenchRow
from tests.support.secrets import HARD, KINDS, OF_OTHERS, Planted, plant, planted_into

Find = Callable[[str, Mark], str]
Kinds = dict[str, Callable[[random.Random], tuple[str, tuple[str, ...]]]]

MAILS = 10_000
WITH_ONE = 2_000
TRUE_SECRETS = frozenset({"91384389", "9a842738", "0f8d4d02", "661ea6a8", "58f8be84"})
"""First eight digits of the sha256 of what real mails held that is a secret, as it was read by hand: a login told to a
helper, a password hash of a root account, the password of a video call, a session cookie, and a download token."""


def bench_masking(data: Path, quick: bool = False) -> list[BenchRow]:
    """Recall over kinds and precision over everything that was masked, in 10,000 real mails, one in five with a planted
    credential: by our own forms, with detect-secrets, and for kinds that only it has; then what no form tells, and the
    time."""
    words = _words(data, 1_000 if quick else MAILS)
    return [
        *_rates(words, KINDS, find_credentials),
        *_rates(words, KINDS, _with_detectors, " with detect-secrets"),
        *_rates(words, OF_OTHERS, find_credentials, ", kinds of detect-secrets, by ours alone", goals=False),
        *_rates(words, OF_OTHERS, _with_detectors, ", kinds of detect-secrets, with it", goals=False),
        _hard(words),
        _cost(words, masker(PrivacySettings())),
        _cost(words, masker(PrivacySettings(detectors=("detect-secrets",))), " with detect-secrets"),
    ]


def _rates(words: list[str], kinds: Kinds, find: Find, how: str = "", *, goals: bool = True) -> list[BenchRow]:
    planted = plant(kinds, len(words) * WITH_ONE // MAILS, seed=1)
    rng = random.Random(1)
    left: Counter[str] = Counter()
    hits = others = true_others = 0
    alarms: list[str] = []
    chosen = dict(zip(rng.sample(range(len(words)), len(planted)), planted, strict=True))
    for place, text in enumerate(words):
        one = chosen.get(place)
        found = _found(planted_into(text, one, rng) if one else text, find)
        if one is not None:
            left[one.kind] += _is_left(one, found)
        for value in found:
            if one is not None and (value in one.text or any(secret in value for secret in one.secrets)):
                hits += 1
                continue
            others += 1
            if hashlib.sha256(value.encode()).hexdigest()[:8] in TRUE_SECRETS:
                true_others += 1
            else:
                alarms.append(value[:40])
    recall = 1 - left.total() / len(planted)
    precision = (hits + true_others) / (hits + others)
    missed = ", ".join(f"{n} of {kind}" for kind, n in left.items() if n) or "none"
    note = f"{len(words)} mails, {len(planted)} planted, {len(kinds)} kinds; missed: {missed}"
    told = f"masked beyond the planted: {others}, of them secrets as judged by hand {true_others}; false alarms: {alarms}"
    rates = (
        ("masked of planted credentials", recall, "recall", 0.99, note),
        ("right among what is masked", precision, "precision", 0.95, told),
    )
    return [
        BenchRow(name + how, value, unit, "", None, None, f"at least {goal}", value >= goal, text)
        if goals
        else BenchRow(name + how, value, unit, "", None, None, "", None, text)
        for name, value, unit, goal, text in rates
    ]


def _found(text: str, find: Find) -> list[str]:
    found: list[str] = []

    def mark(kind: str, secret: str) -> str:
        found.append(secret)
        return f"[masked:{kind}]"

    find(text, mark)
    return found


def _with_detectors(text: str, mark: Mark) -> str:
    return find_detected(find_credentials(text, mark), mark)


def _is_left(one: Planted, found: list[str]) -> bool:
    return any(not any(secret in value for value in found) for secret in one.secrets)


def _hard(words: list[str]) -> BenchRow:
    rng = random.Random(2)
    planted = plant(HARD, 300, seed=2)
    masked = sum(not _is_left(one, _found(planted_into(rng.choice(words), one, rng), find_credentials)) for one in planted)
    share = masked / len(planted)
    return BenchRow(
        "masked of what no form tells",
        share,
        "recall",
        "",
        None,
        None,
        "",
        None,
        f"{len(planted)}: {', '.join(HARD)}",
    )


def _cost(words: list[str], mask: Callable[[str], str], how: str = "") -> BenchRow:
    """Process CPU time, in batches by turns with cutting the words into lines and words, which any look at them costs."""
    mask(words[0])  # what is loaded at the first use is no cost of a mail
    ours = theirs = 0.0
    for start in range(0, len(words), 100):
        some = words[start : start + 100]
        began = time.process_time()
        for text in some:
            mask(text)
        between = time.process_time()
        for text in some:
            for line in text.split("\n"):
                line.split()
        theirs += time.process_time() - between
        ours += between - began
    each, reference = ours / len(words) * 1e6, theirs / len(words) * 1e6
    size = sum(map(len, words)) // len(words)
    note = f"{size} characters a mail on average; CPU time"
    return BenchRow("mask a mail" + how, each, "us", "cutting it into words", reference, each / reference, "", None, note)


def _words(data: Path, most: int) -> list[str]:
    """What would be trained on of ``most`` mails, spread over the archives."""
    found = []
    for name in ARCHIVES:
        mails = archive(data, name)
        share = most // len(ARCHIVES) + (name == ARCHIVES[-1]) * (most % len(ARCHIVES))
        for place in range(share):
            mail = parse_mail(mails[place * len(mails) // share])
            found.append(mail.own_text if mail.own_text.strip() else mail.text)
    return found
