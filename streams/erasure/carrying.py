"""An erasure carried out, from its plan to its receipt: first the decision, as one transaction, then every place in turn.

Each step may be repeated and none depends on a former one being fresh, so a process that dies anywhere leaves an erasure
that the next one finishes: the same command again, any other `forget`, or the start of the daemon.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from pipeline.config.settings import Settings
from pipeline.errors import MailtideError, StoreHeldError
from pipeline.home import Home
from pipeline.store import Store
from pipeline.store.rewriting import Gone, rewrite_bodies
from pipeline.store.rows import ErasureEndRow, JournalRow
from pipeline.times import utc_now
from registry.decide import journal
from registry.journal import Happening, Status, advance, append_event
from streams.erasure import receipt
from streams.erasure.asked import Asked
from streams.erasure.files import steps
from streams.erasure.intent import note
from streams.erasure.plan import Plan
from streams.erasure.planning import plan_erasure, unfinished
from streams.owning.owner_socket import rewrite_by_owner
from streams.owning.stores import PATIENCE_SECONDS, OpenStore
from streams.runs.budget import require_budget
from streams.runs.claims import ALL_WAITING, claim
from streams.runs.planning import require_room
from streams.runs.withdrawal import withdraw

OnStep = Callable[[int, int, str], None]

WITHDRAWAL_SECONDS = 120.0
"""How long a training process is waited for that reads what is to go."""

ACTOR = "forget"


def quiet(done: int, total: int, text: str) -> None:
    """For those who need not be told how far it is."""


def erase(
    home: Home, settings: Settings, open_store: OpenStore, asked: Asked, actor: str, on_step: OnStep = quiet
) -> receipt.ErasureReceipt:
    """Erases what is asked for, everywhere; returns the receipt. What an earlier erasure left undone is finished first.

    Raises ``UsageError`` or ``NothingToDo`` as :func:`plan_erasure` does, with nothing done, and ``MailtideError`` where a
    step cannot be done now: it is taken up again by whoever comes next.
    """
    finished = finish(home, settings, open_store, on_step)
    with open_store() as store:
        again = [one for one in finished if (one.plan.kind, one.plan.target) == (asked.kind, asked.target(store.people))]
        if again:
            return again[-1]
        plan = plan_erasure(store, home, asked, utc_now())
        note(store, home, plan, actor)
    return _carry_out(home, settings, open_store, plan, on_step)


def finish(home: Home, settings: Settings, open_store: OpenStore, on_step: OnStep = quiet) -> list[receipt.ErasureReceipt]:
    """Finishes every erasure that was decided and has not reached every place."""
    with open_store() as store:
        waiting = unfinished(store)
    return [_carry_out(home, settings, open_store, plan, on_step) for plan in waiting]


def _carry_out(
    home: Home, settings: Settings, open_store: OpenStore, plan: Plan, on_step: OnStep
) -> receipt.ErasureReceipt:
    work = steps(home, plan)
    total = len(work) + 3
    if plan.withdrawn is not None:
        on_step(0, total, f"run {plan.withdrawn} ends")
        withdraw(home, plan.withdrawn, WITHDRAWAL_SECONDS)
    for place, (name, step) in enumerate(work):
        on_step(place, total, name)
        step()
    on_step(total - 3, total, "texts and people")
    _rewrite(home, plan.gone)
    on_step(total - 2, total, "retrain")
    with open_store() as store:
        retrain = _ask_for_retrain(store, home, settings, plan)
        on_step(total - 1, total, "receipt")
        now = utc_now()
        sha256 = receipt.write(home, settings, plan, retrain, now)
        store.append([*_files_gone(store, plan), ErasureEndRow(plan.erasure_id, sha256, now)])
    on_step(total, total, "done")
    return receipt.read(home, plan.erasure_id)


def _rewrite(home: Home, gone: Gone) -> None:
    """By the process that holds the store, else by this one; waits a little for a command that has it."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not rewrite_by_owner(home, gone):
        try:
            rewrite_bodies(home, gone)
        except StoreHeldError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.05)
        else:
            return


def _ask_for_retrain(store: Store, home: Home, settings: Settings, plan: Plan) -> str:
    """Asks for the run that takes the place of what was tainted; in a sentence, what came of it."""
    if not plan.wants_retrain:
        return "none is needed: what answers has not learned from it"
    try:
        require_room(store, home, settings, plan.mailbox, ALL_WAITING)
        require_budget(store, home, settings, plan.mailbox, ALL_WAITING, utc_now())
        request = claim(store, home, settings, plan.mailbox, ALL_WAITING, utc_now())
    except MailtideError as refusal:
        return f"none is asked for: {refusal}"
    return f"run {request.run_id} is asked for"


def _files_gone(store: Store, plan: Plan) -> list[JournalRow]:
    """Notes of every tainted adapter that its files are gone."""
    state, made = journal(store), []
    for adapter_id in plan.adapters:
        if state.adapter(adapter_id).status is not Status.TAINTED:
            continue
        row = append_event(
            state,
            mailbox=plan.mailbox,
            adapter_id=adapter_id,
            event=Happening.ERASED,
            reason=f"its files are gone, {plan.erasure_id}",
            actor=ACTOR,
            at=utc_now(),
        )
        state = advance(state, row)
        made.append(row)
    return made
