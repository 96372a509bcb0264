"""Who may use the server: whoever shows a line of the home's ``server.token``."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets

from pipeline.config.server_settings import ServeSettings
from pipeline.errors import UsageError
from pipeline.home import Home, write_atomic

TOKEN_BYTES = 32


class Tokens:
    """The tokens that are valid, as digests. With none at all, everybody may."""

    def __init__(self, tokens: tuple[str, ...]) -> None:
        self._digests = tuple(_digest(token) for token in tokens)

    @property
    def needed(self) -> bool:
        """Whether a caller has to show one."""
        return bool(self._digests)

    def holder(self, header: str | None) -> str | None:
        """A short name for the holder of an ``Authorization`` header's token, or None where it is not valid.

        Every token is compared, each in constant time, so that the time taken says nothing of how much was right.
        """
        scheme, _, token = (header or "").partition(" ")
        shown = _digest(token.strip())
        found = [digest for digest in self._digests if hmac.compare_digest(digest, shown)]
        return found[0].hex()[:8] if found and scheme.lower() == "bearer" else None


def tokens_of(home: Home, settings: ServeSettings) -> Tokens:
    """The tokens of a home, the first one made now where there is none. Raises ``UsageError`` for settings that would let
    anybody on the network in, and for an empty token file."""
    if settings.token == "none":
        if not on_loopback(settings.host):
            raise UsageError(
                f"serve.host is {settings.host}, where others can reach it, and serve.token is none",
                hint="set serve.token to required, or serve.host to 127.0.0.1",
            )
        return Tokens(())
    if not home.server_token.exists():
        write_atomic(home.server_token, f"{secrets.token_urlsafe(TOKEN_BYTES)}\n".encode())
    lines = home.server_token.read_text(encoding="utf-8").split()
    if not lines:
        raise UsageError(f"{home.server_token} holds no token", hint="remove it, and one is made at the next start")
    return Tokens(tuple(lines))


def on_loopback(host: str) -> bool:
    """Whether only programs of this machine reach a server that listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
