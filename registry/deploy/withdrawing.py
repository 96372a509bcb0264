"""Adapters that no target may serve any more, as they learned from mail that was erased: taken back where nothing clean
takes their place, and never deployed again, whatever event comes late.

    deployments/withdrawn.json      their ids
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from datetime import datetime

from pydantic import ValidationError

from pipeline.errors import DeployError, MailtideError
from pipeline.home import Home, write_atomic
from pipeline.strict import Strict
from registry.deploy.contract import Target
from registry.deploy.standing import Standing, deploying, folder, standing, write_standing

log = logging.getLogger(__name__)


class Withdrawn(Strict):
    adapters: tuple[str, ...] = ()


def withdrawn(home: Home) -> frozenset[str]:
    """The adapters that are taken back; raises ``DeployError`` when the file is damaged."""
    path = home.deployments / "withdrawn.json"
    try:
        return frozenset(Withdrawn.model_validate_json(path.read_bytes()).adapters)
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValidationError) as error:
        raise DeployError(
            f"{path} cannot be read ({str(error).splitlines()[0]})", hint="restore it from a backup"
        ) from error


def withdraw_adapters(home: Home, adapters: Collection[str]) -> None:
    """Notes that these are taken back, for good."""
    found = withdrawn(home)
    if not found.issuperset(adapters):
        told = Withdrawn(adapters=tuple(sorted(found.union(adapters))))
        write_atomic(home.deployments / "withdrawn.json", told.model_dump_json(indent=1).encode() + b"\n")


def take_back(home: Home, target: Target, gone: Collection[str], now: Callable[[], datetime]) -> None:
    """Has the target let go of the adapters that are ``gone`` and that it still serves; what it cannot do now is noted as
    its trouble, and tried again. Raises ``DeployError`` when a note is damaged."""
    for path in sorted(folder(home, target.name).glob("*.json")) if gone else ():
        with deploying(home, target.name):
            here = standing(home, target.name, path.stem)
            if here.adapter_id in gone:
                _let_go(home, target, here, now())


def _let_go(home: Home, target: Target, here: Standing, at: datetime) -> None:
    adapter_id = str(here.adapter_id)
    try:
        target.withdraw(here.mailbox, adapter_id)
    except (MailtideError, OSError) as error:
        trouble = f"{adapter_id} learned from mail that was erased, and is still there: {error}"
        changes: dict[str, object] = {"tries": here.tries + 1, "tried_at": at, "trouble": trouble}
    else:
        log.info("%s of %s serves nothing: %s was taken back", target.name, here.mailbox, adapter_id)
        changes = {"served": None, "since": None, "tries": 0, "tried_at": at, "trouble": "", "speed": None, "step": ""}
    write_standing(home, here.model_copy(update=changes))
