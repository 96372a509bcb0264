"""One answer, from its prompt to its last piece, whole or as a stream: what both kinds of completion have in common."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import StreamingResponse

from pipeline.errors import UsageError
from retrain.serving.asked import Finish, Job, Piece, PromptTooLong, Sampling
from streams.server.context import ServerContext
from streams.server.deck import Held
from streams.server.errors import ApiError, error_body
from streams.server.switchboard import failure
from streams.server.wire import Usage

T = TypeVar("T")
Prompt = str | list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Writing:
    """An answer that has begun: its first piece is there, so that what goes wrong before it is an HTTP status."""

    model: str
    prompt_tokens: int
    first: Piece
    rest: AsyncGenerator[Piece, None]

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """All of it; raises ``ApiError`` where it comes to no end of its own."""
        piece = self.first
        async with aclosing(self.rest):
            while True:
                if piece.finish is not None and not piece.finish.whole:
                    raise failure(piece.finish)
                yield piece
                if piece.finish is not None:
                    return
                piece = await anext(self.rest)

    async def whole(self) -> tuple[str, Finish, Usage]:
        """The text, why it ended, and the counts."""
        async with aclosing(self.pieces()) as pieces:
            said = [piece async for piece in pieces]
        finish = said[-1].finish
        assert finish is not None
        return "".join(piece.text for piece in said), finish, Usage.of(self.prompt_tokens, said[-1].tokens)


def tokens_of(held: Held, prompt: Prompt, asked: int | None, default: int) -> tuple[tuple[int, ...], int]:
    """The prompt's tokens and the answer's length at most. Raises ``ApiError`` when both do not fit, with the figures."""
    try:
        tokens = held.model.encode(prompt)
        if not tokens:
            raise ApiError(400, "the prompt is empty", param="prompt", code="invalid_value")
        return tokens, held.model.room(tokens, asked, default)
    except PromptTooLong as error:
        too_long = error.prompt >= error.context
        name = "max_tokens" if not too_long else ("prompt" if isinstance(prompt, str) else "messages")
        raise ApiError(400, str(error), param=name, code="context_length_exceeded") from error
    except UsageError as error:
        raise ApiError(400, str(error), param="messages", code="invalid_value") from error


async def begin(
    context: ServerContext, request: Request, held: Held, prompt: tuple[int, ...], sampling: Sampling, *, streamed: bool
) -> Writing:
    """Has the answer written, and waits for its first piece, or for all of it. Raises ``ApiError``."""
    job = context.deck.write(held, prompt, sampling, context.settings.serve.seconds, streamed=streamed)
    rest = context.switchboard.pieces(job)
    first = await _while_connected(request, job, anext(rest))
    return Writing(held.name, len(prompt), first, rest)


async def finished(request: Request, writing: Writing) -> tuple[str, Finish, Usage]:
    """The whole of an answer; nothing is written on for a caller that is gone."""
    return await _while_connected(request, None, writing.whole())


async def _while_connected(request: Request, job: Job | None, work: Awaitable[T]) -> T:
    """The result of ``work``, unless the caller hangs up first: then it is cancelled, and so is the job."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ApiError(408, "the caller is gone", code="disconnected")
        return working.result()
    finally:
        leaving.cancel()
        if not working.done():
            working.cancel()
            if job is not None:
                job.cancelled.set()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def streamed(writing: Writing, chunk: Callable[[Piece], dict[str, Any]], ending: Callable[[Usage], list[Any]]) -> Any:
    """Server-sent events: a chunk per piece, then ``ending`` with the counts, then ``[DONE]``. What goes wrong on the way
    is an event of its own with the error, and no ``[DONE]``: nobody takes half an answer for a whole one."""

    async def events() -> AsyncIterator[str]:
        tokens = 0
        try:
            async with aclosing(writing.pieces()) as pieces:
                async for piece in pieces:
                    tokens = piece.tokens
                    if piece.text or piece.finish is not None:
                        yield _event(chunk(piece))
        except ApiError as error:
            yield _event(error_body(error.status_code, error.message, error.param, error.code).model_dump())
            return
        for last in ending(Usage.of(writing.prompt_tokens, tokens)):
            yield _event(last)
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


def _event(value: Any) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"
