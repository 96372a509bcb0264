"""The outcome of a spot check, in sentences."""

from __future__ import annotations

from registry.objections import Objection
from registry.spotcheck import Preference


def told(found: Preference, objection: Objection) -> list[str]:
    """What was preferred, how often each answer was given, and what the gate makes of it."""
    if found.judged == 0:
        return [f"Nothing was judged of {found.adapter_id} beside {found.against}."]
    lines = [
        f"{found.judged} judged: {found.won} for {found.adapter_id}, {found.lost} for {found.against}, "
        f"{found.tied} tied, {found.both_bad} both bad."
    ]
    if found.win_rate is not None and found.low is not None and found.high is not None:
        few = ", which is few" if found.few else ""
        threads = f"{found.threads} thread{'' if found.threads == 1 else 's'}"
        lines.append(
            f"{found.adapter_id} wins {100 * found.win_rate:.0f} % of decided pairs "
            f"(95 % interval {100 * found.low:.0f} to {100 * found.high:.0f} %, {threads}{few})."
        )
    return [*lines, f"For the gate: {objection.reason}."]
