"""What may be varied in a what-if, and how a policy is written: ``window.count=200 replay.ratio=1:8``."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.chunking.tier_limits import limited
from pipeline.config.settings import Settings
from pipeline.errors import UsageError

VARIABLE = ("window.*", "replay.*", "train.epochs", "train.batch_tokens", "train.accumulation", "cost.*")
"""What decides windows, steps and rehearsal, and may change between runs. All else is frozen or changes no count."""

AS_SET = "as set"
RATIO = re.compile(r"(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)\Z")


@dataclass(frozen=True, slots=True)
class Policy:
    """Settings to replay under; ``name`` is as the policy was written."""

    name: str
    settings: Settings


def read_policies(current: Settings, written: Sequence[str], read: Callable[[Sequence[str]], Settings]) -> list[Policy]:
    """The current settings, then each policy in the order given.

    ``read`` gives the settings under ``KEY=VALUE`` overrides. A value that holds a space is put in quotes
    (``window.cron="0 6 * * 1"``), a ratio may be written 1:8. Raises ``UsageError`` for a policy that is no such list or
    names what cannot vary, and what ``read`` raises.
    """
    policies = [Policy(AS_SET, current), *(Policy(" ".join(one.split()), read(overrides(one))) for one in written)]
    if any(limited(policy.settings.replay) for policy in policies):
        raise UsageError(
            "caps and weights of quality tiers cannot be simulated: a chunk that was never cut has no tier",
            hint="leave replay.tier_caps and replay.tier_weights out; `mailtide plan` tells what a run does with them",
        )
    return policies


def overrides(policy: str) -> list[str]:
    """The ``KEY=VALUE`` overrides of one policy."""
    try:
        words = shlex.split(policy)
    except ValueError as error:
        raise UsageError(f"the policy {policy!r} cannot be read ({error})", hint="close the quotes") from error
    if not words:
        raise UsageError("a policy is empty", hint="write it as window.count=200 replay.ratio=1:8")
    return [_override(word) for word in words]


def _override(word: str) -> str:
    key, separator, value = word.partition("=")
    if not separator:
        raise UsageError(f"{word!r} is not KEY=VALUE", hint="write a policy as window.count=200 replay.ratio=1:8")
    if not any(key == one or (one.endswith("*") and key.startswith(one[:-1])) for one in VARIABLE):
        raise UsageError(f"{key} cannot vary in a what-if", hint=f"what can: {', '.join(VARIABLE)}")
    ratio = RATIO.match(value)
    if key != "replay.ratio" or ratio is None:
        return word
    whole = float(ratio[2])
    if not whole:
        raise UsageError(f"{word!r} divides by 0", hint="write rehearsal tokens to new ones, as 1:8")
    return f"{key}={float(ratio[1]) / whole!r}"
