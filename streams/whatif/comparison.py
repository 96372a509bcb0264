"""Policies side by side: the log replayed under each, with what the first would have cost as the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from pipeline.errors import NothingToDo
from pipeline.home import Home
from pipeline.scratch import Scratch
from pipeline.store import Store
from streams.whatif.chunking import Cuts, Threads, candidates, cut_anew, stored_cuts
from streams.whatif.log import Log, read_log
from streams.whatif.pace import Pace, measured_pace
from streams.whatif.policies import Policy
from streams.whatif.runs import Run, promoted_runs
from streams.whatif.windows import Replayed, as_stored, replay

OnProgress = Callable[[float, str], None]
"""Called with the share that is done, from 0 to 1, and what was done last."""


@dataclass(frozen=True, slots=True)
class Step:
    """A window that closed and the run that it asked for (None without a train chunk). ``mails`` counts those that had
    arrived by then; ``val_threads`` are the held-out threads with mail in the window. ``seconds`` None: no pace known."""

    window_idx: int
    closed_at: datetime
    reason: str
    mails: int
    n_messages: int
    val_threads: int
    run: Run | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a policy makes of the log.

    ``mails_each`` and ``days_each`` are the medians of closed windows, window 0 left out where there are others.
    ``rehearsal_share`` is of all tokens trained; ``reached`` the share of the chunks trained before the last run that were
    rehearsed at least once (None before a second run). ``thin`` counts windows with fewer val threads than the gate asks
    for, whose runs it would abstain from on their own. ``seconds`` and ``cost`` are estimates, None without a pace.
    """

    policy: str
    windows: int
    open_mails: int
    mails_each: float | None
    days_each: float | None
    runs: int
    steps: int
    tokens: int
    rehearsal_share: float
    reached: float | None
    thin: int
    seconds: float | None
    cost: float | None
    history: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """``outcomes`` in the order of the policies, the current settings first. ``as_stored`` says whether those give the
    windows that the store holds; they do not when the settings changed since. ``cut_anew`` counts the mails of train
    threads whose chunks had to be cut again."""

    mailbox: str
    mails: int
    as_stored: bool
    cut_anew: int
    pace: Pace | None
    currency: str
    outcomes: tuple[Outcome, ...]


def compare(store: Store, home: Home, mailbox: str, policies: Sequence[Policy], on_progress: OnProgress) -> Comparison:
    """Replays a mailbox's log under each policy, reading the store and writing nothing.

    Raises ``NothingToDo`` for a mailbox without mail.
    """
    log = read_log(store, mailbox)
    if not log.mails:
        raise NothingToDo(f"{mailbox} holds no mail to replay", hint="bring mail in with `mailtide import PATH`")
    current = policies[0].settings
    threads = Threads(log)
    replays = [replay(log, policy.settings.window) for policy in policies]
    on_progress(0.05, "windows")
    parts = {part for replayed in replays for window in replayed.closed for part in threads.parts(window)}
    cuts = stored_cuts(store, log, threads)
    missing = parts - cuts.keys()
    cuts |= cut_anew(store, log, threads, current, missing, lambda n, of: on_progress(0.05 + 0.45 * n / of, "chunks"))
    pace = measured_pace(store, home, current, mailbox)
    outcomes = []
    for number, (policy, replayed) in enumerate(zip(policies, replays, strict=True)):
        outcomes.append(_outcome(policy, log, threads, replayed, cuts, pace))
        on_progress(0.5 + 0.5 * (number + 1) / len(policies), policy.name)
    return Comparison(
        mailbox=mailbox,
        mails=len(log.mails),
        as_stored=as_stored(log, replays[0]),
        cut_anew=sum(part.end - part.first for part in missing),
        pace=pace,
        currency=current.cost.currency,
        outcomes=tuple(outcomes),
    )


def _outcome(policy: Policy, log: Log, threads: Threads, replayed: Replayed, cuts: Cuts, pace: Pace | None) -> Outcome:
    settings = policy.settings
    table = candidates(((window.closing.idx, threads.parts(window)) for window in replayed.closed), cuts)
    with Scratch() as scratch:
        runs = {run.window_idx: run for run in promoted_runs(len(replayed.closed), table, settings, scratch)}
    history = tuple(
        Step(
            window_idx=window.closing.idx,
            closed_at=window.closing.closed_at,
            reason=window.closing.reason,
            mails=window.end,
            n_messages=window.closing.n_messages,
            val_threads=threads.held_out(window),
            run=runs.get(window.closing.idx),
            seconds=_seconds(pace, runs.get(window.closing.idx)),
        )
        for window in replayed.closed
    )
    later = [window.closing for window in replayed.closed][1 if len(replayed.closed) > 1 else 0 :]
    tokens = sum(run.tokens for run in runs.values())
    last = runs[max(runs)] if runs else None
    seconds = sum(step.seconds or 0.0 for step in history) if pace is not None else None
    return Outcome(
        policy=policy.name,
        windows=len(history),
        open_mails=len(log.mails) - replayed.open_from,
        mails_each=median(closing.n_messages for closing in later) if later else None,
        days_each=median((closing.closed_at - closing.opened_at).total_seconds() for closing in later) / 86_400
        if later
        else None,
        runs=len(runs),
        steps=sum(run.steps for run in runs.values()),
        tokens=tokens,
        rehearsal_share=sum(run.rehearsal_tokens for run in runs.values()) / tokens if tokens else 0.0,
        reached=last.reached / last.earlier if last is not None and last.earlier else None,
        thin=sum(step.val_threads < settings.gate.min_new_threads for step in history),
        seconds=seconds,
        cost=seconds / 3600 * settings.cost.per_hour if seconds is not None and settings.cost.per_hour else None,
        history=history,
    )


def _seconds(pace: Pace | None, run: Run | None) -> float | None:
    return None if pace is None or run is None else pace.seconds(run.tokens)
