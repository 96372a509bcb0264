"""Brings one target to the promotion that is wanted, step by step, so that it can be ended anywhere and begun again.

    load      beside what serves, under a name of its own
    check     it answers; else it is unloaded, and who served goes on
    flip      the alias, in one step
    confirm   callers get it; else the alias goes back to who served before, and it is unloaded
    unload    what served before, once those who began with it are done

Each step is noted before it is taken. What may have been loaded is a leftover from the moment before its loading on, so
that nothing half-loaded stays behind, whenever the process dies; what serves is noted only after it was confirmed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from pipeline.errors import DeployError, MailtideError
from pipeline.events import AdapterPromoted
from pipeline.home import Home, sha256_folder
from registry.deploy.contract import Target
from registry.deploy.standing import Leftover, SpeedNote, Standing, deploying, standing, write_standing

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 300.0
"""How long a target that failed is left alone: first, and at most."""


def converge(home: Home, target: Target, promotion: AdapterPromoted, now: Callable[[], datetime]) -> Standing:
    """Makes the target serve the promotion unless it serves it, or a newer one; returns how it stands.

    What goes wrong at the target is noted, not raised. Raises ``DeployError`` when the note itself is damaged.
    """
    with deploying(home, target.name):
        here = standing(home, target.name, promotion.mailbox)
        if here.ordinal < promotion.journal_ordinal:
            here = _deploy(home, target, promotion, here, now)
        return _let_go(home, target, here, now)


def retry_at(here: Standing) -> datetime | None:
    """When a target that failed is to be tried again; None where it did not."""
    if not here.trouble or here.tried_at is None:
        return None
    pause = min(FIRST_PAUSE_SECONDS * 2 ** (here.tries - 1), LONGEST_PAUSE_SECONDS)
    return here.tried_at + timedelta(seconds=pause)


def _deploy(
    home: Home, target: Target, promotion: AdapterPromoted, here: Standing, now: Callable[[], datetime]
) -> Standing:
    before = here
    try:
        here = _note(home, here, step="load", leftovers=_with(here, promotion.adapter_id, now()))
        _require_whole(home, promotion)
        target.load(promotion)
        here = _note(home, here, step="check")
        target.check(promotion)
        here = _note(home, here, step="flip", doubtful=True)
        target.flip(promotion)
        here = _note(home, here, step="confirm")
        target.confirm(promotion)
    except (MailtideError, OSError) as error:
        return _failed(home, target, here, error, now())
    log.info("%s of %s serves %s", target.name, promotion.mailbox, promotion.adapter_id)
    kept = tuple(one for one in here.leftovers if one.adapter_id != promotion.adapter_id)
    if before.adapter_id not in (None, promotion.adapter_id):
        kept = (
            *kept,
            Leftover(adapter_id=str(before.adapter_id), not_before=now() + timedelta(seconds=target.drain_seconds)),
        )
    here = _note(
        home,
        here,
        served=promotion,
        since=now(),
        step="",
        doubtful=False,
        tries=0,
        tried_at=now(),
        trouble="",
        leftovers=kept,
        speed=None,
    )
    return _measured(home, target, promotion, here)


def _failed(home: Home, target: Target, here: Standing, error: Exception, at: datetime) -> Standing:
    """Back to who served before, if the alias may have been moved, in this life or an earlier one; what was loaded is let
    go of at the end."""
    trouble, doubtful = str(error), here.doubtful
    if doubtful and here.served is not None:
        try:
            target.flip(here.served)
            target.confirm(here.served)
            doubtful = False
        except (MailtideError, OSError) as second:
            trouble = f"{trouble}; and it cannot be turned back to {here.adapter_id}: {second}"
    if trouble != here.trouble:
        log.warning("%s of %s waits: %s", target.name, here.mailbox, trouble)
    return _note(home, here, step="", doubtful=doubtful, tries=here.tries + 1, tried_at=at, trouble=trouble)


def _let_go(home: Home, target: Target, here: Standing, now: Callable[[], datetime]) -> Standing:
    """Unloads what does not serve any more and is due; what cannot be unloaded now is tried again the next time."""
    for one in () if here.doubtful else here.leftovers:
        if one.adapter_id == here.adapter_id or one.not_before > now():
            continue
        try:
            target.unload(here.mailbox, one.adapter_id)
        except (MailtideError, OSError) as error:
            log.info("%s keeps %s for now: %s", target.name, one.adapter_id, error)
            continue
        here = _note(home, here, leftovers=tuple(other for other in here.leftovers if other != one))
    return here


def _measured(home: Home, target: Target, promotion: AdapterPromoted, here: Standing) -> Standing:
    """A speed check that fails is no reason to turn back: the adapter has answered."""
    try:
        speed = target.speed(promotion)
    except MailtideError as error:
        log.warning("%s serves %s, but its speed is not known: %s", target.name, promotion.adapter_id, error)
        return here
    if speed is None:
        return here
    note = SpeedNote(
        first_token_seconds=speed.first_token_seconds, tokens_per_second=speed.tokens_per_second, tokens=speed.tokens
    )
    return _note(home, here, speed=note)


def _with(here: Standing, adapter_id: str, at: datetime) -> tuple[Leftover, ...]:
    """The leftovers and the adapter that is about to be loaded, which is one until it serves. One that serves is none."""
    if adapter_id == here.adapter_id:
        return here.leftovers
    others = tuple(one for one in here.leftovers if one.adapter_id != adapter_id)
    return (*others, Leftover(adapter_id=adapter_id, not_before=at))


def _require_whole(home: Home, promotion: AdapterPromoted) -> None:
    folder = home.root / promotion.path
    if not folder.is_dir() or sha256_folder(folder) != promotion.sha256:
        raise DeployError(
            f"{folder} is missing or was changed since {promotion.adapter_id} was promoted",
            hint="restore it from a backup, or return to another adapter with `mailtide registry rollback`",
        )


def _note(home: Home, here: Standing, **changes: object) -> Standing:
    return write_standing(home, here.model_copy(update=changes))
