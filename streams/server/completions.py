"""``POST /v1/completions``: a text, gone on with."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from retrain.serving.asked import Piece
from streams.server.answers import begin, finished, streamed, tokens_of
from streams.server.chat import STREAM
from streams.server.context import ServerContext
from streams.server.errors import ERRORS
from streams.server.feedback import issuer
from streams.server.wire import Completion, CompletionAsked, TextChoice, Usage


def router(context: ServerContext) -> APIRouter:
    """Texts, gone on with by the model alone: no template, no retrieval."""
    routes = APIRouter(prefix="/v1", tags=["completions"], responses=ERRORS)
    serve = context.settings.serve
    ids = issuer(context)

    @routes.post("/completions", response_model=Completion, responses=STREAM)
    async def go_on_with_text(asked: CompletionAsked, request: Request) -> Any:
        """Go on with a text."""
        with context.deck.hold(asked.model) as held:
            prompt, most = await run_in_threadpool(tokens_of, held, asked.text, asked.max_tokens, serve.max_tokens)
            writing = await begin(context, request, held, prompt, asked.sampling(most), streamed=bool(asked.stream))
        name, created = ids.issue("cmpl", writing.model), int(time.time())
        if not asked.stream:
            text, finish, usage = await finished(request, writing)
            choice = TextChoice(text=text, finish_reason=finish.value)
            return Completion(id=name, created=created, model=writing.model, choices=[choice], usage=usage)
        head = {"id": name, "object": "text_completion", "created": created, "model": writing.model}

        def chunk(piece: Piece) -> dict[str, Any]:
            choice = {"index": 0, "text": piece.text, "logprobs": None, "finish_reason": piece.finish}
            return {**head, "choices": [choice]}

        def ending(usage: Usage) -> list[Any]:
            return [{**head, "choices": [], "usage": usage.model_dump()}] if asked.with_usage else []

        return streamed(writing, chunk, ending)

    return routes
