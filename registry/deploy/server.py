"""A running ``mailtide serve`` as a deploy target, by the part of its API that needs the token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.errors import DeployError
from pipeline.events import AdapterPromoted
from registry.deploy.calling import Caller
from registry.deploy.completions import measure, smoke
from registry.deploy.contract import Speed

ALIAS = "champion"


class Server:
    """Loads an adapter beside those that serve, and moves the alias of its mailbox."""

    name = "server"
    drain_seconds = 0.0  # the server itself lets go of an adapter only when nobody is answered by it any more

    def __init__(self, url: str, seconds: float, token: Callable[[], str] | None, mailbox: str | None = None) -> None:
        self.mailbox = mailbox
        self._caller = Caller(url, seconds, token)

    def load(self, promotion: AdapterPromoted) -> None:
        self._caller.json("POST", "/api/adapters/load", {"adapter_id": promotion.adapter_id})

    def check(self, promotion: AdapterPromoted) -> None:
        smoke(self._caller, promotion.adapter_id)

    def flip(self, promotion: AdapterPromoted) -> None:
        self._caller.json("POST", f"/api/aliases/{ALIAS}", {"adapter_id": promotion.adapter_id})

    def confirm(self, promotion: AdapterPromoted) -> None:
        told = self._caller.json("GET", "/ready")
        served = _alias(told)
        if served != promotion.adapter_id:
            raise DeployError(
                f"{promotion.adapter_id} was made {ALIAS} of the server, which serves {served or 'another'}",
                hint="see the log of that server",
            )

    def unload(self, mailbox: str, adapter_id: str) -> None:
        self._caller.json("POST", "/api/adapters/unload", {"adapter_id": adapter_id})

    def withdraw(self, mailbox: str, adapter_id: str) -> None:
        """Nothing: the server follows the registry, and lets go of what is tainted by itself."""

    def speed(self, promotion: AdapterPromoted) -> Speed | None:
        return measure(self._caller, promotion.adapter_id)


def _alias(told: Any) -> str | None:
    aliases = told.get("aliases") if isinstance(told, dict) else None
    served = aliases.get(ALIAS) if isinstance(aliases, dict) else None
    return served if isinstance(served, str) else None
