"""An event loop in a thread of its own, for code that is not asynchronous itself."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

Answer = TypeVar("Answer")
LOOK_SECONDS = 0.2


class LoopThread:
    """Runs coroutines for other threads. Of each call the caller waits for the end, unless ``give_up`` says otherwise."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(
        self, work: Coroutine[Any, Any, Answer], *, give_up: threading.Event | None = None, patience: float = 0.0
    ) -> Answer | None:
        """What ``work`` answers; None when ``give_up`` was set and ``patience`` seconds more did not end it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        if give_up is None:
            return future.result()
        while not future.done() and not give_up.is_set():
            concurrent.futures.wait([future], LOOK_SECONDS)
        try:
            return future.result(patience)
        except concurrent.futures.TimeoutError:
            if future.done():
                raise
            future.cancel()
            return None

    def end(self) -> None:
        """Ends the thread; what still runs in it is cancelled."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
