"""Secrets and, by setting, personal data out of text before it is trained on: a model repeats what it has read.

What is found is replaced by ``[masked:KIND]``: the same words for the same kind everywhere and always, so that what is
masked can be counted, and so that masking again changes nothing. Credentials: :mod:`pipeline.privacy.credentials` knows
shapes and :mod:`pipeline.privacy.labelled` what words say of the value behind them. Personal data:
:mod:`pipeline.privacy.personal`. Another library's forms, by setting: :mod:`pipeline.privacy.detectors`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import reduce

from pipeline.config.settings import PrivacySettings
from pipeline.privacy.credentials import Mark, replace_shapes
from pipeline.privacy.labelled import replace_labelled

MASKED = re.compile(r"\[masked:([a-z-]{2,30})\]")


def placeholder(kind: str) -> str:
    """What stands where a secret of that kind stood."""
    return f"[masked:{kind}]"


def mask_credentials(text: str) -> str:
    """The text with each credential found replaced by its placeholder; masking again changes nothing."""
    return find_credentials(text, _placeholder_of)


def find_credentials(text: str, mark: Mark) -> str:
    """The text with what ``mark`` gives for each credential, of a kind and as it was written, in its place."""
    return replace_labelled(replace_shapes(text, mark), mark)


def masker(privacy: PrivacySettings) -> Callable[[str], str]:
    """What a store with these settings does to subjects and words before anything is cut from them."""
    steps: list[Callable[[str], str]] = [mask_credentials] if privacy.mask_credentials else []
    if privacy.detectors:
        from pipeline.privacy.detectors import find_detected

        steps.append(lambda text: find_detected(text, _placeholder_of))
    if privacy.mask_personal:
        from pipeline.privacy.personal import find_personal

        steps.append(lambda text: find_personal(text, privacy.mask_personal, _placeholder_of))
    return lambda text: reduce(lambda masked, step: step(masked), steps, text)


def count_masked(text: str) -> Counter[str]:
    """How often each kind was masked in a text."""
    return Counter(MASKED.findall(text)) if "[masked:" in text else Counter()


def _placeholder_of(kind: str, secret: str) -> str:
    return placeholder(kind)
