"""The gate asked again about a candidate, on the run's own evidence and what people and time have told since."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from pipeline.config.settings import Settings
from pipeline.errors import RegistryError
from pipeline.home import Home
from pipeline.runs.requests import read_result
from pipeline.store import Store
from registry.byhand import promote, reject
from registry.decide import journal, reigning
from registry.decided import decided, request_of
from registry.evidence import base_name
from registry.gate import Outcome, Verdict, decide
from registry.journal import Status
from registry.late import late_figures


def decide_again(store: Store, home: Home, adapter_id: str, settings: Settings, now: datetime, actor: str) -> Verdict:
    """The verdict by the policy of the settings, and what follows from it: a promotion or a rejection is a journal entry of
    ``actor``, who asked; where the gate still abstains nothing is recorded.

    Raises ``UsageError`` for an unknown adapter, ``RegistryError`` for one that is no candidate, or whose evidence is gone.
    """
    request = request_of(store, adapter_id)
    state = journal(store)
    known = state.adapters.get(request.adapter_id)
    if known is None or known.status is not Status.CANDIDATE:
        stands = "has no verdict yet" if known is None else f"is {known.status}"
        raise RegistryError(
            f"{request.adapter_id} {stands}, and the gate is asked again about candidates alone",
            hint="decide by hand: `mailtide registry promote`, `reject` or `rollback`",
        )
    run = decided(store, home, request)
    if run.evidence is None:
        raise RegistryError(f"its evidence cannot be read: {run.missing}", hint="restore the run's folder from a backup")
    result = read_result(home.run(request.run_id))
    late = {figure.name: figure for figure in late_figures(store, request, result, settings)}
    figures = (*(figure for figure in run.evidence.figures if figure.name not in late), *late.values())
    champion = reigning(store, state, request) or base_name(request)
    verdict = decide(replace(run.evidence, figures=figures, champion_now=champion), settings.gate)
    reason = f"the gate, asked again: {'; '.join(verdict.reasons)}"
    if verdict.outcome is Outcome.PROMOTED:
        promote(store, home, request.mailbox, request.adapter_id, reason, actor, now)
    elif verdict.outcome is Outcome.REJECTED:
        reject(store, request.mailbox, request.adapter_id, reason, actor, now)
    return verdict
