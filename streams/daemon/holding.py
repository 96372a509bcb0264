"""What goes with holding a store: taking mail into it, closing its windows by time, and lending it to commands."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from pipeline.home import Home
from pipeline.settings import Settings
from pipeline.store import Store
from pipeline.versions import VERSIONS
from streams.daemon.board import Board
from streams.daemon.clockwork import Clockwork
from streams.daemon.intake import Intake
from streams.daemon.measuring import answering_prometheus
from streams.held import HeldStore
from streams.notices.finding import watch
from streams.owner_socket import OwnerSocket
from streams.times import utc_now


def hold(stack: ExitStack, home: Home, settings: Settings, board: Board) -> tuple[HeldStore, Intake, Clockwork]:
    """Opens the store and answers at its socket until ``stack`` is closed. The clockwork is not started yet."""
    open_store = partial(Store.open, home, settings, VERSIONS)
    held = HeldStore(open_store(), open_store)
    stack.callback(held.close)
    with held.writing() as store:
        watch(store, settings, utc_now())
    door = OwnerSocket(home, held, lambda: board.state)
    stack.callback(door.close)
    if settings.daemon.metrics_port is not None:
        stack.enter_context(answering_prometheus(home, settings, held, board, settings.daemon.metrics_port))
    return held, Intake(held, home, settings), Clockwork(board)
