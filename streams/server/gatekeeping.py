"""What a request passes before any endpoint sees it: is there room, who asks, how often, how much, for how long."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.config.server_settings import ServeSettings
from streams.server.errors import ApiError, note_failure, refuse
from streams.server.tokens import Tokens

log = logging.getLogger(__name__)

OPEN = frozenset({"/health", "/ready"})
"""What needs no token: it says whether the server is well, and no more."""

UNTIMED = "/events"
"""How the path of an endpoint ends that streams for as long as its caller listens."""

GRACE_SECONDS = 10.0
"""How much longer than an answer may take its reader may take to read it."""

HOLDER = "mailtide.holder"
"""Under this key of the scope stands who asks; None where no token was shown."""


class Gatekeeper:
    """ASGI middleware; outermost. Refusals are errors of the same shape as all others."""

    def __init__(self, app: ASGIApp, settings: ServeSettings, tokens: Tokens, clock: Callable[[], float] = time.monotonic):
        self._app = app
        self._settings = settings
        self._tokens = tokens
        self._clock = clock
        self._under_way = 0
        self._buckets: dict[str, _Bucket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        begun = self._clock()
        self._under_way += 1
        try:
            self._admit(scope)
        except ApiError as error:
            error.headers = {**(error.headers or {}), "Connection": "close"}
            await refuse(answer, error)
        else:
            await self._carried_out(scope, receive, answer)
        finally:
            self._under_way -= 1
            took = self._clock() - begun
            log.info("%s %s %d in %.3f s", scope["method"], _shown(scope), answer.status, took)

    async def _carried_out(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        try:
            await self._timed(scope, _Body(receive, self._settings.body_bytes), answer)
        except ApiError as error:
            if not answer.status:
                await refuse(answer, error)
        except Exception as error:
            # Nobody foresaw it, so nobody knows what its message quotes: only where it happened is told, in the log.
            note_failure(error)
            if not answer.status:
                await refuse(answer, ApiError(500, "the server failed; its log says where"))

    def _admit(self, scope: Scope) -> None:
        """Raises ``ApiError`` unless the request may go on."""
        if self._under_way > self._settings.requests:
            raise ApiError(503, f"{self._settings.requests} requests are under way", code="overloaded", retry_after=1)
        headers = dict(scope["headers"])
        holder = self._tokens.holder(headers.get(b"authorization", b"").decode("latin-1"))
        scope[HOLDER] = holder
        if scope["path"] not in OPEN and self._tokens.needed and holder is None:
            raise ApiError(401, "show a valid token: `Authorization: Bearer TOKEN`", code="invalid_api_key")
        self._limit(holder or (scope.get("client") or ("unknown",))[0])
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._settings.body_bytes:
            raise _too_large(self._settings.body_bytes)

    def _limit(self, caller: str) -> None:
        rate = self._settings.rate
        if not rate:
            return
        now = self._clock()
        bucket = self._buckets.pop(caller, _Bucket(float(rate), now)).refilled(rate, now)
        if len(self._buckets) >= MOST_CALLERS:
            self._buckets.pop(next(iter(self._buckets)))
        taken = bucket.left >= 1
        self._buckets[caller] = _Bucket(bucket.left - taken, now)
        if not taken:
            wait = (1 - bucket.left) * 60 / rate
            raise ApiError(429, f"more than {rate} requests in a minute", code="rate_limit_exceeded", retry_after=wait)

    async def _timed(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        if scope["path"].endswith(UNTIMED):
            await self._app(scope, receive, answer)
            return
        try:
            async with asyncio.timeout(self._settings.seconds + GRACE_SECONDS):
                await self._app(scope, receive, answer)
        except TimeoutError:
            if not answer.status:
                raise ApiError(408, "the request took too long to arrive or to answer", code="timeout") from None
            log.info("a reader was too slow for its answer")


MOST_CALLERS = 1_024
"""Callers whose pace is remembered; of more, those not heard of for longest are forgotten."""


@dataclass(frozen=True, slots=True)
class _Bucket:
    """Requests that a caller may still make at once, as of a time; a minute's worth at most."""

    left: float
    at: float

    def refilled(self, rate: int, now: float) -> _Bucket:
        return _Bucket(min(float(rate), self.left + (now - self.at) * rate / 60), now)


class _Answer:
    """Remembers which status was sent; 0 while none was."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
        await self._send(message)


class _Body:
    """Counts what arrives, so that a body without a length, or with a wrong one, ends at the limit too."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._seen = 0

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._seen += len(message.get("body", b""))
            if self._seen > self._limit:
                raise _too_large(self._limit)
        return message


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"a request may have {limit:,} bytes (serve.body_bytes)", code="request_too_large")


def _shown(scope: Scope) -> str:
    """The path for the log: without the query, and no longer than a path of ours."""
    path = str(scope["path"])
    return path[:80] if path.isprintable() else "(an odd path)"
