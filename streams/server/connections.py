"""Connections of callers: one that sends no request is not kept."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 20.0
"""For the head of a connection's first request."""


class Connection(H11Protocol):
    """uvicorn ends connections that are idle after a request; this one also ends those that never come to one."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._patience = self.loop.call_later(HEAD_SECONDS, transport.close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None:
            self._content()

    def connection_lost(self, exc: Exception | None) -> None:
        self._content()
        super().connection_lost(exc)

    def _content(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
