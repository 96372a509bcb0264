"""One server from start to stop: its socket, its threads, its signals."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import uvicorn
from starlette.types import ASGIApp

from pipeline.config.settings import Settings
from pipeline.errors import UsageError
from pipeline.home import Home
from pipeline.runs.requests import BaseRef
from retrain.offline import TIED, keep_offline
from streams.server.app import build_app
from streams.server.connections import Connection
from streams.server.context import ServerContext
from streams.server.deck import Deck
from streams.server.following import Following
from streams.server.mailsearch import MailSearch
from streams.server.storeroom import Storeroom
from streams.server.switchboard import Switchboard
from streams.server.tokens import tokens_of
from streams.server.turns import MakeEngine, Turns

if TYPE_CHECKING:
    from retrain.serving.engine import Engine

log = logging.getLogger(__name__)

BACKLOG = 1_024
MOST_FILES = 65_536
KEEP_ALIVE_SECONDS = 5
LAST_SECONDS = 1
"""How long connections may take to close once every answer has ended."""


def serve(home: Home, settings: Settings, mailbox: str, announce: Callable[[str], None]) -> NoReturn:
    """Serves a mailbox until SIGTERM or SIGINT, and ends the process with code 0; ``announce`` is given the address once it
    listens. Raises ``UsageError`` where it cannot listen or would let anybody in."""
    keep_offline()
    warnings.filterwarnings("ignore", message=TIED)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    tokens = tokens_of(home, settings.serve)
    _allow_connections()
    with _listening(settings.serve.host, settings.serve.port) as listener:
        storeroom = Storeroom(home, settings)
        switchboard = Switchboard()
        deck = Deck(settings.serve, switchboard.deliver)
        context = ServerContext(
            home=home,
            settings=settings,
            mailbox=mailbox,
            storeroom=storeroom,
            deck=deck,
            search=MailSearch(home, settings, mailbox, storeroom),
            switchboard=switchboard,
        )
        turns = Turns(home, settings, deck, _engines(home, settings))
        following = Following(home, settings, mailbox, storeroom, deck, turns.open_model, turns.close_model)
        host, port = listener.getsockname()[:2]
        announce(f"http://{f'[{host}]' if ':' in host else host}:{port}/v1")
        asyncio.run(_until_told(build_app(context, tokens), listener, context, following, turns))
    _leave()


async def _until_told(
    app: ASGIApp, listener: socket.socket, context: ServerContext, following: Following, turns: Turns
) -> None:
    """Answers until told to stop; then running answers have ``serve.stop_seconds``, and new requests are refused."""
    loop = asyncio.get_running_loop()
    context.switchboard.attach(loop)
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    server = _Server(
        uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=LAST_SECONDS,
        )
    )
    following.start()
    turns.start()
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    telling = asyncio.create_task(told.wait())
    await asyncio.wait({serving, telling}, return_when=asyncio.FIRST_COMPLETED)
    log.info("stopping: running answers have %g s", context.settings.serve.stop_seconds)
    following.stop()
    turns.stop()
    await asyncio.to_thread(context.deck.close, "the server is stopping", wait=context.settings.serve.stop_seconds)
    context.switchboard.end_all()
    server.should_exit = True
    telling.cancel()
    await serving


class _Server(uvicorn.Server):
    """Leaves signals to us: there is more to end than connections."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _engines(home: Home, settings: Settings) -> MakeEngine:
    def make(base: BaseRef, device: str) -> Engine:
        # Imported in the thread that loads: it takes seconds, and requests are answered meanwhile.
        from retrain.serving.engine import Engine, Room
        from retrain.serving.model import ServedModel, serving_compute

        chosen = settings.serve
        threads = chosen.threads or (1 if base.kind == "builtin" else None)

        def make_model() -> ServedModel:
            return ServedModel(home, base, settings.model, serving_compute(settings.model, device, threads))

        return Engine(make_model, Room(chosen.batch, chosen.batch_tokens, chosen.queue))

    return make


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens; port 0 takes a free one. Raises ``UsageError``, as the address is a setting."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        # Python's own words may repeat the address.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        raise UsageError(
            f"cannot listen on {host}, port {port}: {reason}",
            hint="set serve.port (or --port) to a free one, and serve.host to an address of this machine",
        ) from error
    try:
        yield listener
    finally:
        listener.close()


def _leave() -> NoReturn:
    """Ends the process. All is closed by now; taking apart what a model needs would only cost seconds, and a thread that is
    still loading one would be cut off in the middle of that."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


def _allow_connections() -> None:
    """Lifts the process's own limit of open files as far as the system lets it: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
