"""The role ``parse``: Faust agents that answer every raw mail with a parsed one. They keep nothing: any number may run.

A mail counts as done only once its answer is durable: the agent does not let Faust acknowledge by itself, which it would
do when the next mail is asked for, and also after an exception.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import threading
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.config.bus_settings import BusSettings, ParseSettings
from pipeline.errors import BusError, MailtideError
from pipeline.events import Topic
from pipeline.home import Home
from streams.bus.connection import fault, faust_options
from streams.bus.deadletters import Origin, dead_record
from streams.bus.envelope import Record, RecordRefused
from streams.bus.topics import check_topics, dead_letter_name, message_bytes, topic_name
from streams.mailpath.answers import Answering
from streams.mailpath.claim_checks import ClaimChecks
from streams.mailpath.outlet import Outlet, partition_of
from streams.parsers.pool import ParserPool

if TYPE_CHECKING:
    import faust
    from faust.types import EventT, StreamT

log = logging.getLogger(__name__)

CONSUMER = "parse"
NOISY = ("faust", "mode")
LINGER_SECONDS = 0.02
UNDER_WAY = 200
"""Mails that a parser pool is given at once; the others wait on the broker."""
BUFFERED = 500
"""Mails that Faust reads ahead."""
SESSION_SECONDS = 6
"""After this long without a sign of life, a worker's partitions go to the others."""
METADATA_SECONDS = 10
"""How often a worker asks anew where its topics are. One whose broker had come back was seen idle until it did so, which
is after five minutes unless told otherwise."""
STOP_LOOK_SECONDS = 0.2
STOP_SECONDS = 6.0
"""How long answers under way and Faust's own parts may take when the role stops."""
THREAD_STOP_SECONDS = 3.0
"""How long Faust may wait for the thread of its consumer, instead of its own minute."""


def run(home: Home, settings: BusSettings, parse: ParseSettings, stop: threading.Event) -> None:
    """Parses until ``stop`` is set. ``home`` only says where large mails are put down.

    Raises ``BusError`` when the broker cannot be used, or a large mail cannot be put down.
    """
    with ParserPool(parse) as pool, tempfile.TemporaryDirectory(prefix="mailtide-parse-") as scratch:
        _run(_Parsing(settings, Answering(pool.submit, ClaimChecks(home, settings.claim_check)), stop).run(scratch))


def _run(main: Coroutine[Any, Any, None]) -> None:
    """``asyncio.run``, but tasks that go on when cancelled, as some of Faust's do without a broker, are left."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(main)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=THREAD_STOP_SECONDS))
        asyncio.set_event_loop(None)
        if any(not task.done() for task in left):
            # Open for what they still call; of those that the end of the process meets there is nothing to tell.
            loop.set_exception_handler(lambda *_: None)
        else:
            loop.close()


class _Parsing:
    def __init__(self, settings: BusSettings, answering: Answering, stop: threading.Event) -> None:
        self._settings = settings
        self._answering = answering
        self._stop = stop
        self._source = topic_name(settings, Topic.MESSAGE_RECEIVED)
        self._target = topic_name(settings, Topic.MESSAGE_PARSED)
        self._dead = dead_letter_name(settings, Topic.MESSAGE_RECEIVED)
        self._room = asyncio.Semaphore(UNDER_WAY)
        self._failed: asyncio.Future[None]
        self._outlet: Outlet
        self._partitions: int

    async def run(self, scratch: str) -> None:
        await check_topics(self._settings)
        self._failed = asyncio.get_running_loop().create_future()
        self._outlet = await Outlet.opened(self._settings, linger=LINGER_SECONDS)
        try:
            self._partitions = await self._outlet.partitions(self._target)
            async with self._working(scratch) as app:
                while not self._stop.is_set():
                    await asyncio.wait({self._failed}, timeout=STOP_LOOK_SECONDS)
                    if self._failed.done():
                        self._failed.result()
                    if app.should_stop:
                        raise await self._crashed(app.crash_reason)
        finally:
            await self._outlet.close()

    async def _crashed(self, reason: BaseException | None) -> BusError:
        from aiokafka.errors import KafkaError

        if isinstance(reason, (KafkaError, OSError)):
            return await fault(self._settings, reason)
        return BusError(f"the parse worker stopped: {reason!r}", hint="see above, and start it again")

    @asynccontextmanager
    async def _working(self, scratch: str) -> AsyncIterator[faust.App]:
        from aiokafka.errors import KafkaError

        app = self._app(scratch)
        try:
            try:
                await app.start()
            except (KafkaError, OSError) as error:
                raise await fault(self._settings, error) from error
            yield app
        finally:
            for noisy in NOISY:  # what does not end as Faust expects is told in one line
                logging.getLogger(noisy).setLevel(logging.CRITICAL)
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await app.stop()
            except TimeoutError:
                log.warning("the parse worker did not stop in time; what it had begun will be parsed again")

    def _app(self, scratch: str) -> faust.App:
        import faust

        _leave_threads_behind()
        app = faust.App(
            f"{self._settings.prefix}{CONSUMER}",
            **faust_options(self._settings),
            datadir=scratch,
            loop=asyncio.get_running_loop(),
            web_enabled=False,
            # There is nothing to lead, and topics are made by command.
            topic_disable_leader=True,
            topic_allow_declare=False,
            topic_partitions=self._settings.partitions,
            key_serializer="raw",
            value_serializer="raw",
            consumer_auto_offset_reset="earliest",
            broker_session_timeout=SESSION_SECONDS,
            broker_heartbeat_interval=1,
            broker_commit_interval=1.0,
            consumer_max_fetch_size=message_bytes(self._settings),
            consumer_metadata_max_age_ms=METADATA_SECONDS * 1_000,
            stream_buffer_maxsize=BUFFERED,
        )
        for noisy in NOISY:
            logging.getLogger(noisy).setLevel(logging.ERROR)
        topic = app.topic(
            self._source, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", allow_empty=True
        )
        app.agent(topic, name=f"{self._settings.prefix}{CONSUMER}")(self._agent)
        return app

    async def _agent(self, stream: StreamT[Any]) -> None:
        loop = asyncio.get_running_loop()
        async for event in stream.noack().events():
            await self._room.acquire()
            record = Record(event.key or b"", event.value or b"", tuple(event.headers.items()))
            answer = self._answering.answer(record)
            if answer.done():
                await self._publish(event, record, answer)
            else:
                answer.add_done_callback(partial(self._from_thread, loop, event, record))

    def _from_thread(
        self, loop: asyncio.AbstractEventLoop, event: EventT[Any], record: Record, answer: Future[Record]
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._publish(event, record, answer), loop)

    async def _publish(self, event: EventT[Any], record: Record, answer: Future[Record]) -> None:
        """Puts the answer, or the refusal, on its way; the mail is done when that is durable."""

        try:
            error = answer.exception()
            if error is None:
                made = answer.result()
                mailbox = made.key.decode()
                await self._outlet.add(self._target, partition_of(mailbox, self._partitions), made, event.ack)
            elif isinstance(error, RecordRefused):
                log.warning("a record of %s was set aside: %s", self._source, error.message)
                message = event.message
                at = Origin(int(message.timestamp * 1000), message.topic, message.partition, message.offset)
                refused = dead_record(record, CONSUMER, 1, error.message, at)
                await self._outlet.add(self._dead, message.partition, refused, event.ack)
            else:
                self._fail(error)
        except MailtideError as failure:
            self._fail(failure)
        finally:
            self._room.release()

    def _fail(self, error: BaseException) -> None:
        if not self._failed.done():
            known = error if isinstance(error, MailtideError) else BusError(f"parsing failed: {error!r}")
            self._failed.set_exception(known)


def _leave_threads_behind() -> None:
    """A consumer that lost its broker may never leave its thread, which would keep the process as Faust makes it."""
    from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
    from mode.threads import ServiceThread, WorkerThread

    class Daemon(WorkerThread):
        def __init__(self, service: ServiceThread, **options: Any) -> None:
            super().__init__(service, **options)
            self.daemon = True

        def run(self) -> None:
            with suppress(asyncio.CancelledError):
                super().run()

    AIOKafkaConsumerThread.Worker = Daemon
    AIOKafkaConsumerThread.shutdown_timeout = THREAD_STOP_SECONDS
