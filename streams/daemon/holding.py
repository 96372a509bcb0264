"""What goes with holding a store: taking mail into it, closing its windows by time, and lending it to commands."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from functools import partial

from pipeline.config.settings import Settings
from pipeline.errors import MailtideError
from pipeline.home import Home
from pipeline.times import utc_now
from streams.daemon.board import Board
from streams.daemon.clockwork import Clockwork
from streams.daemon.intake import Intake
from streams.daemon.measuring import answering_prometheus
from streams.erasure.carrying import finish
from streams.erasure.planning import unfinished
from streams.notices.finding import watch
from streams.owning.held import HeldStore
from streams.owning.owner_socket import OwnerSocket
from streams.owning.stores import kept_store, opener

log = logging.getLogger(__name__)


def hold(stack: ExitStack, home: Home, settings: Settings, board: Board) -> tuple[HeldStore, Intake, Clockwork]:
    """Opens the store and answers at its socket until ``stack`` is closed. The clockwork is not started yet. What a
    `forget` has begun and could not finish is finished first."""
    open_store = partial(kept_store, home, settings)
    with open_store() as store:
        begun = unfinished(store)
    if begun:
        _finish(home, settings)
    held = HeldStore(open_store(), open_store)
    stack.callback(held.close)
    with held.writing() as store:
        watch(store, settings, utc_now())
    door = OwnerSocket(home, held, lambda: board.state)
    stack.callback(door.close)
    if settings.daemon.metrics_port is not None:
        stack.enter_context(answering_prometheus(home, settings, held, board, settings.daemon.metrics_port))
    return held, Intake(held, home, settings), Clockwork(board)


def _finish(home: Home, settings: Settings) -> None:
    """What cannot be finished now is tried at the next start: nothing erased is read meanwhile."""
    try:
        for receipt in finish(home, settings, opener(home, settings)):
            log.info("erasure %s is finished", receipt.plan.erasure_id)
    except MailtideError as error:
        log.warning("an erasure is not finished: %s", error)
