"""``POST /v1/chat/completions``."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from retrain.serving.asked import Piece
from streams.server.answers import Prompt, Writing, begin, finished, streamed, tokens_of
from streams.server.context import ServerContext
from streams.server.deck import Held
from streams.server.errors import ERRORS
from streams.server.feedback import issuer
from streams.server.quoting import Quoted, quoted
from streams.server.wire import ChatAsked, ChatChoice, ChatCompletion, ChatMessage, Usage

EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": EVENT}}, "description": "the answer, with `stream` as events"}
}


def router(context: ServerContext) -> APIRouter:
    """Chats, answered by the model alone or from the mailbox."""
    routes = APIRouter(prefix="/v1", tags=["completions"], responses=ERRORS)
    serve = context.settings.serve
    ids = issuer(context)

    @routes.post("/chat/completions", response_model=ChatCompletion, responses=STREAM)
    async def answer_chat(asked: ChatAsked, request: Request) -> Any:
        """Answer a chat. With `retrieval`, the mailbox is searched for the last message, the mails that fit are quoted to
        the model, and the answer lists them as `citations`."""
        with context.deck.hold(asked.model) as held:
            prompt, most, found = await run_in_threadpool(prepare, asked, held)
            writing = await begin(context, request, held, prompt, asked.sampling(most), streamed=bool(asked.stream))
        if asked.stream:
            return _stream(ids.issue("chatcmpl", writing.model), asked, writing, found)
        text, finish, usage = await finished(request, writing)
        return ChatCompletion(
            id=ids.issue("chatcmpl", writing.model),
            created=int(time.time()),
            model=writing.model,
            choices=[ChatChoice(message=ChatMessage(content=text), finish_reason=finish.value)],
            usage=usage,
            citations=found.citations if found else None,
            notice=(found.notice or None) if found else None,
        )

    def prepare(asked: ChatAsked, held: Held) -> tuple[tuple[int, ...], int, Quoted | None]:
        messages: Prompt = [message.plain() for message in asked.messages]
        found = None
        if serve.retrieval if asked.retrieval is None else asked.retrieval:
            room = asked.asked_tokens or min(serve.max_tokens, held.model.context // 4)
            found = quoted(context, held, asked.messages, asked.citations or serve.citations, room)
            messages = found.messages
        tokens, most = tokens_of(held, messages, asked.asked_tokens, serve.max_tokens)
        return tokens, most, found

    return routes


def _stream(name: str, asked: ChatAsked, writing: Writing, found: Quoted | None) -> Any:
    created = int(time.time())
    begun = False

    def event(choices: list[Any], **more: Any) -> dict[str, Any]:
        head = {"id": name, "object": "chat.completion.chunk", "created": created, "model": writing.model}
        return {**head, "choices": choices, **more}

    def chunk(piece: Piece) -> dict[str, Any]:
        nonlocal begun
        more: dict[str, Any] = {}
        delta = {"content": piece.text} if piece.text else {}
        if not begun:
            delta = {"role": "assistant", "content": piece.text}
            if found is not None:
                more["citations"] = [mail.model_dump() for mail in found.citations]
                more["notice"] = found.notice or None
        begun = True
        return event([{"index": 0, "delta": delta, "finish_reason": piece.finish}], **more)

    def ending(usage: Usage) -> list[Any]:
        return [event([], usage=usage.model_dump())] if asked.with_usage else []

    return streamed(writing, chunk, ending)
