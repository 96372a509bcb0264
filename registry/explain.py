"""Why a run was promoted, rejected or abstained on, and what its evidence could have shown: from what is stored alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pipeline.config.settings import GateSettings
from pipeline.home import Home
from pipeline.intervals import Interval
from pipeline.runs.requests import RunRequest
from pipeline.store import Store
from pipeline.store.rows import ClosingRow, JournalRow, RequestRow
from registry.changes import Changed, changed_settings
from registry.decided import MEASURED, Decided, by_hand
from registry.evidence import base_name, judging_chunks
from registry.gate import Comparison, Evidence, RuleOutcome, Ruling, bound_on_better, decide, paired_interval
from registry.objections import ASKS as LIMITED
from registry.objections import Objection, objections
from registry.power import LIKELY, chance_within, smallest_seen, threads_for
from registry.reigns import GATE, Served, all_served
from registry.spotcheck import RULE, spot_figure

ASKS = {
    "champion": "is the champion still the one challenged",
    "new_threads": "do enough threads of the new windows judge",
    "new": "better on the new windows, and surely enough",
    "old": "not worse, beyond a margin, on windows that the champion had learned",
    "drift": "the same against the best adapter ever",
    **LIMITED,
}
OBJECTS = "nothing else speaks against it"


@dataclass(frozen=True, slots=True)
class Power:
    """What a measured rule's evidence could show, in nats per token; figures are None where they are not known.

    ``error`` is the standard error with ``df`` degrees of freedom; ``effective_threads`` how many threads of one length
    would give as many. ``smallest_seen`` is the smallest true difference that would show in four of five repetitions, and
    ``chance_if_equal`` how likely a challenger that is truly no better and no worse passes the rule.
    """

    error: float | None
    df: float | None
    effective_threads: float | None
    smallest_seen: float | None
    chance_if_equal: float | None


@dataclass(frozen=True, slots=True)
class Need:
    """What an open rule lacks. Threads are val threads that may judge: ``measured`` there were, ``stored`` are in the
    windows asked about, ``if_mean_holds`` in all would settle it at an even chance, ``for_four_in_five`` in four cases of
    five; None where no number would, or none is known."""

    rule: str
    measured: int
    stored: int | None
    if_mean_holds: int | None
    for_four_in_five: int | None
    sentence: str


@dataclass(frozen=True, slots=True)
class Explained:
    """One rule: what it asks, the verdict's own figures and ruling, and by how much it holds (``margin_left`` is negative
    where that much is missing)."""

    rule: RuleOutcome
    asks: str
    margin_left: float | None
    power: Power | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A verdict with all that it rests on.

    ``base_id`` names the base by its content, ``base`` is what ``model.base`` called it.
    ``policy_kept`` is false where the verdict did not keep its policy and that of the settings stands in. ``differences``
    are rules that the stored evidence, asked again, does not rule as the verdict does. ``missing`` says why evidence could
    not be read: then ``power`` and ``needs`` are absent. ``since`` is what people judged after the verdict, by the
    policy of the settings. ``changed`` are settings of the run that the champion's was made otherwise by, and ``left`` the
    times in which the adapter served that a person ended.
    """

    run_id: str
    adapter_id: str
    mailbox: str
    status: str
    reasons: tuple[str, ...]
    at: datetime
    reference: str
    base_id: str
    base: str
    new_windows: tuple[int, ...]
    old_windows: tuple[int, ...]
    policy: GateSettings
    policy_kept: bool
    rules: tuple[Explained, ...]
    needs: tuple[Need, ...]
    differences: tuple[str, ...]
    missing: str
    by_hand: tuple[JournalRow, ...]
    since: tuple[Objection, ...]
    changed: tuple[Changed, ...]
    left: tuple[Served, ...]


def explain(store: Store, home: Home, run: Decided, settings: GateSettings) -> Explanation:
    """Explains a decided run. ``settings`` stand in for the policy where the verdict did not keep it."""
    request, verdict, evidence = run.request, run.verdict, run.evidence
    kept = verdict.policy if verdict is not None else None
    policy = kept or settings
    intervals = intervals_of(evidence, policy) if evidence is not None else {}
    rules = verdict.rules if verdict is not None else ()
    journal = store.fetch(JournalRow, order="ordinal")
    needs: list[Need] = []
    if evidence is not None and run.status == "abstained":
        mails = sum(
            row.n_messages
            for row in store.fetch(ClosingRow, "mailbox = ?", [request.mailbox])
            if row.window_idx in request.new_windows
        )
        stored = _stored_threads(home, run)
        needs = [
            need(rule, evidence, intervals.get(rule.name), policy, stored.get(rule.name), mails)
            for rule in rules
            if rule.ruling is Ruling.OPEN
        ]
    return Explanation(
        run_id=request.run_id,
        adapter_id=request.adapter_id,
        mailbox=request.mailbox,
        status=run.status,
        reasons=run.reasons,
        at=run.at,
        reference=request.champion.adapter_id if request.champion else f"base:{request.base.base_id}",
        base_id=request.base.base_id,
        base=request.settings.model.base,
        new_windows=tuple(sorted(set(request.new_windows) - set(request.old_windows))),
        old_windows=request.old_windows,
        policy=policy,
        policy_kept=kept is not None,
        rules=tuple(
            Explained(
                rule,
                ASKS.get(rule.name, OBJECTS),
                margin_left(rule, intervals.get(rule.name), policy),
                power_of(rule, intervals.get(rule.name), policy) if rule.name in intervals else None,
            )
            for rule in rules
        ),
        needs=tuple(needs),
        differences=_differences(run, policy) if kept is not None else (),
        missing=run.missing,
        by_hand=tuple(by_hand(journal, request.adapter_id)),
        since=_since(store, run, settings),
        changed=_changed(store, request),
        left=tuple(
            served
            for served in all_served(journal, request.mailbox)
            if served.adapter_id == request.adapter_id and served.ended_by is not None and served.ended_by.actor != GATE
        ),
    )


def _changed(store: Store, request: RunRequest) -> tuple[Changed, ...]:
    """Against the run of the champion that was challenged; nothing where that is of another home, or the bare base."""
    before = store.fetch(RequestRow, "adapter_id = ?", [request.champion.adapter_id]) if request.champion else []
    return changed_settings(RunRequest.model_validate_json(before[0].request), request) if before else ()


def _since(store: Store, run: Decided, settings: GateSettings) -> tuple[Objection, ...]:
    request = run.request
    champion = request.champion.adapter_id if request.champion else base_name(request)
    figure = spot_figure(store, request.mailbox, request.adapter_id, champion, settings)
    rules = run.verdict.rules if run.verdict is not None else ()
    heard = any((rule.name, rule.figure, rule.n_chunks) == (RULE, figure.figure, figure.n) for rule in rules)
    told = [one for one in objections([figure], settings) if one.name == RULE]
    return tuple(told) if figure.n and not heard else ()


def intervals_of(evidence: Evidence, policy: GateSettings) -> dict[str, Interval | None]:
    """The interval of each measured rule that the evidence has."""
    return {name: paired_interval(pairs, policy) for name, pairs in comparisons(evidence).items()}


def comparisons(evidence: Evidence) -> Mapping[str, Comparison]:
    """The paired losses by the rule that asks about them; a rule that is absent has none."""
    found = {name: getattr(evidence, name) for name in MEASURED}
    return {name: pairs for name, pairs in found.items() if pairs is not None}


def margin_left(rule: RuleOutcome, found: Interval | None, policy: GateSettings) -> float | None:
    """How far the figure that decides is on the passing side of its threshold: the upper bound of ``new`` at
    ``confidence_better``, that of ``old`` and ``drift``, the count of ``new_threads``, the lower bound of what may object.
    None for what has no such figure."""
    if rule.threshold is None or rule.figure is None or rule.ruling is Ruling.ABSENT:
        return None
    if rule.name in LIMITED:
        return rule.threshold - (rule.figure if rule.low is None else rule.low)
    if rule.name == "new_threads":
        return rule.figure - rule.threshold
    if rule.name in ("old", "drift"):
        return rule.threshold - rule.high if rule.high is not None else None
    if rule.name == "new" and found is not None:
        bound = bound_on_better(found, policy)
        return rule.threshold - bound if math.isfinite(bound) else None
    return None


def power_of(rule: RuleOutcome, found: Interval | None, policy: GateSettings) -> Power:
    """What a rule's evidence could show."""
    if found is None or not math.isfinite(found.error):
        return Power(None, None, None, None, None)
    chance = None
    if rule.name in ("old", "drift"):
        chance = chance_within(found, rule.threshold or 0.0, policy.confidence)
    return Power(found.error, found.df, found.df + 1, smallest_seen(found, policy.confidence), chance)


def need(
    rule: RuleOutcome, evidence: Evidence, found: Interval | None, policy: GateSettings, stored: int | None, mails: int
) -> Need:
    """What would settle an open rule; ``mails`` is how many the new windows hold."""
    pairs = comparisons(evidence).get(rule.name, evidence.new)
    measured = pairs.n_threads
    if rule.name == "champion":
        return Need(rule.name, 0, None, None, None, "a run against the present champion: the next one is")
    if rule.name in LIMITED:
        return Need(rule.name, rule.n_chunks, None, None, None, "its evidence, which the policy requires")
    if rule.name == "new_threads":
        return _threads_wanted(evidence.new.n_threads, policy.min_new_threads, stored, mails)
    if found is None or pairs.unpaired:
        lacking = (
            f"losses of {pairs.reference} on {pairs.unpaired} chunks" if pairs.unpaired else "a val chunk to compare on"
        )
        return Need(rule.name, measured, stored, None, None, f"{lacking}; more threads settle nothing before that")
    if found.n_clusters < 2:
        return Need(
            rule.name, measured, stored, None, None, "a second thread: one alone has no spread to tell an error from"
        )
    threshold = rule.threshold or 0.0
    worse = found.value >= threshold
    # Below its threshold a rule waits for the upper bound to come down; above it, for the lower bound to come up.
    room = abs(found.value - threshold)
    confidence = policy.confidence_better if rule.name == "new" and not worse else policy.confidence
    even = threads_for(found, room, confidence=confidence)
    likely = threads_for(found, room, confidence=confidence, chance=LIKELY)
    end = "show that it is worse" if worse else "pass"
    if even is None:
        says = f"the mean is too near {threshold:g} for any number of threads to {end}"
    else:
        says = f"about {even} threads in all would {end} if the mean holds"
        says += f", {likely} in four cases of five" if likely is not None else ""
        says += f"; {measured} were measured"
    if worse and rule.name == "new":
        says += "; it passes only with a mean below 0"
    return Need(rule.name, measured, stored, even, likely, says + _where_from(rule.name, measured, stored))


def _threads_wanted(have: int, wanted: int, stored: int | None, mails: int) -> Need:
    lacking = wanted - have
    says = f"{lacking} more thread{'' if lacking == 1 else 's'} in windows that the champion has not learned"
    if have and mails:
        says += f", about {math.ceil(lacking * mails / have):,} more mails at {mails / have:,.0f} mails a thread so far"
    return Need("new_threads", have, stored, wanted, wanted, says + "; the next run pools these windows with what closes")


def _where_from(name: str, measured: int, stored: int | None) -> str:
    if name == "new":
        return "; the next run pools these windows with what closes"
    if stored is not None and stored > measured:
        return f"; its windows hold {stored}, and `eval.max_chunks` keeps the sample smaller"
    return "; its windows hold no more, so a smaller harm or windows learned later must settle it"


def _stored_threads(home: Home, run: Decided) -> dict[str, int]:
    """How many threads that may judge the windows of each rule hold, measured or not."""
    old = frozenset(run.request.old_windows)
    new = frozenset(run.request.new_windows) - old
    chunks = judging_chunks(home, run.request).values()
    counted = {
        name: len({chunk.thread_id for chunk in chunks if chunk.window_idx in windows})
        for name, windows in (("new", new), ("old", old))
    }
    return {"new_threads": counted["new"], "new": counted["new"], "old": counted["old"], "drift": counted["old"]}


def _differences(run: Decided, policy: GateSettings) -> tuple[str, ...]:
    """Rules that come out otherwise when the gate is asked again: then a file or the gate is not what it was."""
    if run.verdict is None or run.evidence is None:
        return ()
    again = {rule.name: rule for rule in decide(run.evidence, policy).rules}
    return tuple(
        rule.name
        for rule in run.verdict.rules
        if rule.name not in again
        or again[rule.name].ruling is not rule.ruling
        or not _same(again[rule.name].figure, rule.figure)
    )


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
