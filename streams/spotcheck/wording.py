"""The outcome of a spot check, in sentences."""

from __future__ import annotations

from registry.journal import Status
from registry.objections import Objection, Says
from registry.spotcheck import Preference


def told(found: Preference, objection: Objection, status: Status) -> list[str]:
    """What was preferred, how often each answer was given, what the gate makes of it, and the next step where there is
    one; ``status`` is that of the adapter judged."""
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
    lines.append(f"For the gate: {objection.reason}.")
    if objection.verdict is not Says.ABSENT and status is Status.CANDIDATE:
        lines.append(f"The gate can be asked again: mailtide registry decide {found.adapter_id}")
    if objection.verdict is Says.OBJECTS and status is Status.CHAMPION:
        lines.append("It serves; to return to the champion before it: mailtide registry rollback --reason TEXT")
    return lines
