"""The daemon without a broker: feeds, owner and training of one home, all in this process."""

from __future__ import annotations

import threading
from contextlib import ExitStack

from pipeline.config.settings import Settings
from pipeline.home import Home
from streams.bus.embedded import EmbeddedBus
from streams.daemon.board import Board
from streams.daemon.deploying import Deploying
from streams.daemon.embedding import embedding_parts
from streams.daemon.following import Following
from streams.daemon.holding import hold
from streams.daemon.notifying import notice_parts
from streams.daemon.parts import Part
from streams.daemon.training import Training
from streams.feeds.opening import live_feeds
from streams.parsers.pool import ParserPool
from streams.runs.lease import right_to_train


def embedded_parts(stack: ExitStack, home: Home, settings: Settings, board: Board, stop: threading.Event) -> list[Part]:
    """Opens what they need, to be closed with ``stack``, and gives the parts."""
    held, intake, clockwork = hold(stack, home, settings, board)
    stack.enter_context(right_to_train(home))
    pool = stack.enter_context(ParserPool(settings.parse))
    followings: list[Following] = []
    for name, mailbox in settings.mailboxes.items():
        feeds = live_feeds(home, name, mailbox)
        if feeds:
            intake.register(name, feeds)
            intake.close_due(name, pending=True)
            clockwork.add(name, intake)
        followings += [
            Following(name, feed, intake, lambda batch: list(pool.answers(batch)), board, stop) for feed in feeds
        ]
    training = Training(home, settings, held, board, stop)
    stack.enter_context(clockwork)
    return [
        Part(
            "training",
            training.run,
            training.stop,
            idle=lambda: training.idle and not held.changed.is_set(),
            trouble=lambda: training.fault,
        ),
        Deploying(home, settings, EmbeddedBus(held.writing), held.writing, stop, news=held.listener()).part(),
        *notice_parts(home, settings, held, stop),
        *embedding_parts(home, settings, held, board, stop),
        *(
            Part(one.feed.name, one.run, idle=lambda one=one: one.idle, trouble=lambda one=one: one.away)  # type: ignore[misc]
            for one in followings
        ),
    ]
