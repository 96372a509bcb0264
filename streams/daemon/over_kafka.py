"""The daemon's roles with a broker: each may be a process, or a machine, of its own; all of them together may be one."""

from __future__ import annotations

import hashlib
import logging
import socket
import threading
from contextlib import ExitStack
from functools import partial

from pipeline.config.settings import Settings
from pipeline.home import Home
from pipeline.times import utc_now
from streams.bus.intake import Membership
from streams.bus.kafka import KafkaBus
from streams.daemon.board import Board, FeedState, TrainingState
from streams.daemon.claiming import Claiming
from streams.daemon.delivering import Delivering, patient
from streams.daemon.deploying import Deploying
from streams.daemon.embedding import embedding_parts
from streams.daemon.holding import hold
from streams.daemon.judging import Judging
from streams.daemon.notifying import notice_parts
from streams.daemon.parts import Part
from streams.daemon.wording import closed_line
from streams.feeds.opening import live_feeds
from streams.mailpath import assigning, feeding, parsing, relaying
from streams.owning.batch import Taken
from streams.owning.stores import opener
from streams.runs.lease import right_to_train
from streams.runs.retraining import Trainer, subscribe_training
from streams.runs.runner import Runner, Step
from streams.runs.telling import NowAndThen

log = logging.getLogger(__name__)

BROKER_LOOK_SECONDS = 0.5
"""How often the broker is asked for promotions."""
OUTBOX_SECONDS = 30.0
"""How often the outbox is looked at when nobody has announced anything."""


class KafkaRoles:
    """Makes the parts of each role. What they need is opened then, and closed with ``stack``."""

    def __init__(
        self,
        stack: ExitStack,
        home: Home,
        settings: Settings,
        board: Board,
        stop: threading.Event,
        finishing: threading.Event,
    ) -> None:
        self._stack = stack
        self._home = home
        self._settings = settings
        self._board = board
        self._stop = stop
        self._finishing = finishing
        self._now_and_then = NowAndThen(log)

    def parts(self, roles: tuple[str, ...]) -> list[Part]:
        """The parts of all these roles."""
        makers = {
            "feed": self.feed,
            "parse": self.parse,
            "assign": self.assign,
            "train": self.train,
            "deploy": self.deploy,
        }
        return [part for role in roles for part in makers[role]()]

    def feed(self) -> list[Part]:
        """Feeds to the topic of raw mail."""
        feeds = {name: live_feeds(self._home, name, mailbox) for name, mailbox in self._settings.mailboxes.items()}
        for mailbox, several in feeds.items():
            for feed in several:
                self._board.add_feed(FeedState(mailbox, feed.name, feed.source))
        ended = threading.Event()

        def run() -> None:
            once = self._finishing.is_set()
            feeding.run(self._home, self._settings.bus, feeds, self._stop, once=once, on_state=self._board.feed_is)
            ended.set()

        def idle() -> bool:
            own = [feed for feed in self._board.state.feeds if feed.doing != "taking"]
            return ended.is_set() or all(feed.doing == "waiting" for feed in own)

        return [Part("feed", run, idle=idle)]

    def parse(self) -> list[Part]:
        """Raw mail to parsed mail."""
        return [Part("parse", partial(parsing.run, self._home, self._settings.bus, self._settings.parse, self._stop))]

    def assign(self) -> list[Part]:
        """Parsed mail to rows; closings and requests to the broker; verdicts."""
        held, intake, clockwork = hold(self._stack, self._home, self._settings, self._board)
        for mailbox in self._settings.mailboxes:
            intake.close_due(mailbox, pending=True)
            clockwork.add(mailbox, intake)
        self._stack.enter_context(clockwork)
        bus = self._stack.enter_context(KafkaBus(self._settings.bus, self._member("owner")))
        claiming = Claiming(self._home, self._settings, held, self._board)
        judging = Judging(self._home, self._settings, held, bus, claiming, self._board, self._stop)
        relayed, news = threading.Event(), held.listener()

        def wait(seconds: float) -> None:
            relayed.set()
            news.wait(OUTBOX_SECONDS)
            # Cleared before the outbox is looked at, so that what is written meanwhile is looked at next time.
            news.clear()
            relayed.clear()

        def taken(mailbox: str, taken: Taken) -> None:
            self._taken(mailbox, taken)
            if taken.closed:
                held.announce()

        return [
            Part(
                "assign",
                partial(assigning.run, self._home, self._settings, intake.opened, self._stop, on_taken=taken),
            ),
            Part(
                "relay",
                partial(relaying.run, held.writing, bus, self._stop, wait=wait),
                news.set,
                idle=lambda: relayed.is_set() and not news.is_set(),
            ),
            Part("owner", judging.run, judging.stop, idle=judging.is_idle),
            *notice_parts(self._home, self._settings, held, self._stop),
            *embedding_parts(self._home, self._settings, held, self._board, self._stop),
        ]

    def train(self) -> list[Part]:
        """Requests to runs, on this machine."""
        self._stack.enter_context(right_to_train(self._home))
        bus = self._stack.enter_context(KafkaBus(self._settings.bus, self._member("trainer")))
        runner = self._stack.enter_context(Runner(self._home))
        trainer = Trainer(self._home, runner, bus, self._step)
        subscribe_training(bus, patient(trainer.train, self._board, self._stop))
        delivering = Delivering("training", bus, self._stop)

        def stop() -> None:
            bus.stop()
            runner.stop()

        return [Part("train", delivering.run, stop, idle=delivering.is_idle)]

    def deploy(self) -> list[Part]:
        """Promotions to what the settings name."""
        bus = self._stack.enter_context(KafkaBus(self._settings.bus))
        open_store = opener(self._home, self._settings)
        news = threading.Event()
        deploying = Deploying(self._home, self._settings, bus, open_store, self._stop, news=news, look=BROKER_LOOK_SECONDS)
        return [deploying.part()]

    def _member(self, role: str) -> Membership:
        """A name that outlives the process: who holds a lock of the home is the only one of it, and goes on at once."""
        home = hashlib.sha256(f"{socket.gethostname()}:{self._home.root}".encode()).hexdigest()[:12]
        return Membership(instance=f"{role}-{home}")

    def _taken(self, mailbox: str, taken: Taken) -> None:
        name = f"{mailbox}@broker"
        if name not in {feed.feed for feed in self._board.state.feeds}:
            self._board.add_feed(FeedState(mailbox, name, "through the broker", "taking"))
        self._board.taken(name, taken, utc_now())
        if taken.read:
            log.info("%s: %d mails, %d new", mailbox, taken.read, taken.new)
        if taken.closed:
            log.info("%s", closed_line(mailbox, taken.closed))

    def _step(self, step: Step) -> None:
        self._board.training_is(TrainingState.of(step))
        self._now_and_then.hear(step)
