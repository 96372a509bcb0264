"""A decided run as it stood: its request, its verdict, and the evidence that the verdict fell on, read again.

The evidence is in the run's folder and in the journal, so a verdict can be explained, checked and asked again under another
policy without a model. Where a file is gone that is told, and nothing is put in its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pipeline.errors import MailtideError, RunError, UsageError
from pipeline.home import Home
from pipeline.runs.harms import Figure
from pipeline.runs.requests import RunRequest, read_result
from pipeline.store import Store
from pipeline.store.rows import AdapterRow, JournalRow, RequestRow
from registry.decide import decision_of, reigning
from registry.evidence import gather
from registry.gate import Evidence, Ruling, Verdict
from registry.journal import Happening, fold
from registry.objections import ASKS, Objection, Says

MEASURED = ("new", "old", "drift")
"""Rules on paired losses."""

RULES = ("champion", "new_threads", *MEASURED)
"""Rules that follow from losses and journal; what else a verdict names was an objection."""

VERDICTS = frozenset({Happening.PROMOTED.value, Happening.REJECTED.value, Happening.ABSTAINED.value})


@dataclass(frozen=True, slots=True)
class Decided:
    """A run with its verdict. ``ordinal`` is the verdict's in the journal; ``verdict`` is None for a run that failed, and
    ``evidence`` None where ``missing`` says why it cannot be read."""

    request: RunRequest
    status: str
    reasons: tuple[str, ...]
    at: datetime
    ordinal: int
    verdict: Verdict | None
    evidence: Evidence | None
    missing: str = ""


def request_of(store: Store, named: str) -> RunRequest:
    """The request of a run, named by its id or its adapter's; raises ``UsageError`` for an unknown name, and for an adapter
    of another home, which has its run."""
    rows = store.fetch(RequestRow, "run_id = ? OR adapter_id = ?", [named, named])
    if not rows and store.fetch(AdapterRow, "run_id = ? OR adapter_id = ?", [named, named]):
        raise UsageError(
            f"{named} was imported: its run, evidence and verdict are in the home that made it",
            hint=f"see `mailtide registry show {named}` and `mailtide registry verify {named}`",
        )
    if not rows:
        raise UsageError(f"there is no adapter or run {named}", hint="see `mailtide registry list` or `mailtide runs`")
    return RunRequest.model_validate_json(rows[0].request)


def decided(store: Store, home: Home, request: RunRequest) -> Decided:
    """Raises ``RunError`` while the run has no verdict."""
    made = decision_of(store, request)
    if made is None:
        raise RunError(f"run {request.run_id} has no verdict yet", hint="go on with it: `mailtide retrain --confirm`")
    rows = store.fetch(JournalRow, order="ordinal")
    own = [row for row in rows if row.adapter_id == request.adapter_id]
    entry = next((row for row in own if is_verdict(row, own)), own[0])
    found = Decided(request, made.status, made.reasons, made.at, entry.ordinal, made.verdict, None)
    if made.verdict is None:
        return replace(found, missing="the run failed, so nothing was measured to the end")
    try:
        result = read_result(home.run(request.run_id))
        champion = reigning(store, fold(row for row in rows if row.ordinal < own[0].ordinal), request)
        evidence = gather(home, request, result, champion, objections=objections_of(made.verdict))
        evidence = replace(evidence, figures=(*evidence.figures, *late_figures_of(made.verdict, evidence.figures)))
    except (MailtideError, OSError, ValueError) as error:
        return replace(found, missing=_first_line(error))
    return replace(found, evidence=evidence)


def is_verdict(row: JournalRow, journal: Sequence[JournalRow]) -> bool:
    """Whether a journal row is the gate's verdict, not a person's decision: it is what follows the evaluation."""
    before = [other for other in journal if other.adapter_id == row.adapter_id and other.ordinal < row.ordinal]
    if row.event == Happening.FAILED.value:
        return not before
    return row.event in VERDICTS and bool(before) and before[-1].event == Happening.EVALUATED.value


def by_hand(journal: Iterable[JournalRow], adapter_id: str) -> list[JournalRow]:
    """What people decided about an adapter, in order: promotions, rejections and returns that no run brought about."""
    rows = list(journal)
    decisions = {Happening.PROMOTED.value, Happening.REJECTED.value, Happening.ROLLED_BACK.value}
    return [row for row in rows if row.adapter_id == adapter_id and row.event in decisions and not is_verdict(row, rows)]


def objections_of(verdict: Verdict) -> tuple[Objection, ...]:
    """What objected then whatever the policy. It is taken from the verdict, as what it was seen by need not be there any
    more."""
    return tuple(
        Objection(rule.name, rule.figure, rule.low, rule.high, rule.n_chunks, rule.threshold, Says.OBJECTS, rule.sentence)
        for rule in verdict.rules
        if rule.name not in (*RULES, *ASKS) and rule.ruling is Ruling.FAIL
    )


def late_figures_of(verdict: Verdict, left: Sequence[Figure]) -> tuple[Figure, ...]:
    """Figures that the run did not leave itself, as the verdict kept them: nothing else knows them as they were then."""
    own = {figure.name for figure in left}
    return tuple(
        Figure(rule.name, rule.figure, rule.low, rule.high, rule.n_chunks)
        for rule in verdict.rules
        if rule.name in ASKS and rule.name not in own and rule.figure is not None
    )


def _first_line(error: Exception) -> str:
    if isinstance(error, MailtideError):
        return error.message
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    return str(error).splitlines()[0]
