"""The deploy targets that the settings name, and all of them at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from pipeline.config.feed_settings import SecretSettings
from pipeline.config.settings import Settings
from pipeline.errors import DeployError, RunError
from pipeline.events import AdapterPromoted
from pipeline.home import Home
from pipeline.runs.requests import BaseRef, read_request
from registry.deploy.calling import Caller
from registry.deploy.contract import Target
from registry.deploy.converging import converge
from registry.deploy.merged import Merged
from registry.deploy.server import Server
from registry.deploy.standing import Standing, standing, wanted
from registry.deploy.symlink import Symlink
from registry.deploy.vllm import Vllm
from registry.deploy.webhook import Webhook
from registry.deploy.withdrawing import take_back, withdrawn
from registry.importing import imported

SecretOf = Callable[[SecretSettings], str]


def targets(home: Home, settings: Settings, secret_of: SecretOf) -> list[Target]:
    """Those that are on, in the order in which ``status`` tells of them."""
    deploy = settings.deploy
    found: list[Target] = []
    if deploy.symlink:
        found.append(Symlink(home))
    if deploy.merged:
        found.append(Merged(home, lambda adapter_id: base_of(home, adapter_id)))
    if deploy.server.url is not None:
        own = _secret(deploy.server.secret, secret_of) or (lambda: _server_token(home))
        token = None if settings.serve.token == "none" and deploy.server.secret is None else own
        found.append(Server(deploy.server.url, deploy.seconds, token, deploy.server.mailbox))
    if deploy.vllm.url is not None:
        caller = Caller(deploy.vllm.url, deploy.seconds, _secret(deploy.vllm.secret, secret_of))
        adapters = Path(deploy.vllm.adapters or home.adapters)
        found.append(Vllm(home, deploy.vllm.url, adapters, caller, deploy.vllm.drain, deploy.vllm.mailbox))
    if deploy.webhook.url is not None:
        secret = _secret(deploy.webhook.secret, secret_of)
        found.append(Webhook(home, deploy.webhook.url, deploy.seconds, secret))
    return found


def converge_all(home: Home, several: Sequence[Target], now: Callable[[], datetime]) -> list[Standing]:
    """Brings every target to what is wanted of every mailbox, side by side, so that one that hangs delays no other.

    What learned from erased mail is taken back. What a target cannot do is in its standing. Raises ``DeployError`` at the
    end for a note that is damaged or cannot be written.
    """
    gone = withdrawn(home)
    promotions = [promotion for promotion in wanted(home) if promotion.adapter_id not in gone]
    found: dict[str, list[Standing]] = {}
    failed: list[Exception] = []

    def work(target: Target) -> None:
        try:
            found[target.name] = _each(home, target, promotions, now)
            take_back(home, target, gone, now)
        except OSError as error:
            failed.append(DeployError(f"how {target.name} stands cannot be noted: {error}", hint="see to the home's disk"))
        except Exception as error:
            failed.append(error)

    # Threads that nobody waits for at the end of the process: what they leave undone is done after the next start.
    threads = [threading.Thread(target=work, args=(target,), name=target.name, daemon=True) for target in several]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return [one for target in several for one in found[target.name]]


def standings(home: Home, several: Sequence[Target]) -> list[tuple[AdapterPromoted, Standing]]:
    """What is wanted and how each target is, for those that take that mailbox."""
    gone = withdrawn(home)
    promotions = [promotion for promotion in wanted(home) if promotion.adapter_id not in gone]
    return [
        (promotion, standing(home, target.name, promotion.mailbox))
        for target in several
        for promotion in promotions
        if _takes(target, promotion)
    ]


def base_of(home: Home, adapter_id: str) -> BaseRef:
    """The base that an adapter of this home stands on, by the request of its run, or by its import."""
    run_id = adapter_id.removeprefix("a")
    if (kept := imported(home, run_id)) is not None:
        return kept.base
    try:
        return read_request(home.run(run_id)).base
    except RunError as error:
        raise DeployError(f"which base {adapter_id} stands on is not known: {error.message}", hint=error.hint) from error


def _each(home: Home, target: Target, promotions: Sequence[AdapterPromoted], now: Callable[[], datetime]) -> list[Standing]:
    return [converge(home, target, promotion, now) for promotion in promotions if _takes(target, promotion)]


def _takes(target: Target, promotion: AdapterPromoted) -> bool:
    return target.mailbox in (None, promotion.mailbox)


def _secret(place: SecretSettings | None, secret_of: SecretOf) -> Callable[[], str] | None:
    return None if place is None else lambda: secret_of(place)


def _server_token(home: Home) -> str:
    """The first token of the home's own server."""
    try:
        lines = home.server_token.read_text(encoding="utf-8").split()
    except OSError as error:
        raise DeployError(f"{home.server_token} cannot be read", hint="start `mailtide serve` once") from error
    if not lines:
        raise DeployError(f"{home.server_token} holds no token", hint="remove it and start `mailtide serve`")
    return lines[0]
