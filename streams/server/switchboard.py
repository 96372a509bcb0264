"""From the engine's thread to the requests that wait on the event loop: all that is handed over at once in one call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress

from retrain.serving.asked import Finish, Job, Piece
from streams.server.errors import ApiError


class Switchboard:
    """``deliver`` is for the engine, ``pieces`` for the loop. A job must be asked for in the same breath (without awaiting)
    in which it was given to the engine, so that its first piece finds its line."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lines: dict[Job, asyncio.Queue[Piece]] = {}

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loop that requests wait on."""
        self._loop = loop

    def deliver(self, pieces: Sequence[tuple[Job, Piece]]) -> None:
        """Hands pieces to the loop, from any thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed, and nobody waits
                self._loop.call_soon_threadsafe(self._sort, pieces)

    def pieces(self, job: Job) -> AsyncGenerator[Piece, None]:
        """The pieces of a job as they come, those that came meanwhile as one. Closing it early cancels the job."""
        line: asyncio.Queue[Piece] = asyncio.Queue()
        self._lines[job] = line
        return self._read(job, line)

    async def _read(self, job: Job, line: asyncio.Queue[Piece]) -> AsyncGenerator[Piece, None]:
        try:
            while True:
                piece = await line.get()
                while piece.finish is None and not line.empty():
                    piece = piece.followed_by(line.get_nowait())
                yield piece
                if piece.finish is not None:
                    return
        finally:
            job.cancelled.set()
            self._lines.pop(job, None)

    def end_all(self) -> None:
        """Ends whoever still waits; for the end of the server, on the loop."""
        for line in self._lines.values():
            line.put_nowait(Piece("", 0, Finish.STOPPED))

    def _sort(self, pieces: Sequence[tuple[Job, Piece]]) -> None:
        for job, piece in pieces:
            line = self._lines.get(job)
            if line is not None:
                line.put_nowait(piece)


def failure(finish: Finish) -> ApiError:
    """What a caller is told of an answer that came to no end of its own."""
    if finish is Finish.STOPPED:
        return ApiError(503, "the server stopped before the answer was complete", code="stopping", retry_after=5)
    if finish is Finish.LATE:
        return ApiError(503, "the answer took longer than a request may (serve.seconds)", code="timeout", retry_after=5)
    return ApiError(500, "the model failed at this answer; the server's log says how", code="model_failed")
