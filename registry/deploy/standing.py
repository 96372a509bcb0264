"""What each target should serve, does serve, and what became of the last try: small files that outlive any crash.

    deployments/wanted/MAILBOX.json       the newest promotion, as taken from the outbox or a broker
    deployments/TARGET/MAILBOX.json       how far a target is

``status`` and ``doctor`` read them without the store; every file is replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from pipeline.errors import DeployError
from pipeline.events import AdapterPromoted
from pipeline.filelock import locked
from pipeline.home import Home, private_dir, write_atomic
from pipeline.strict import Strict

WANTED = "wanted"

Note = TypeVar("Note", bound=BaseModel)


class Leftover(Strict):
    """An adapter that a target may still hold and need not, from ``not_before`` on to be let go."""

    adapter_id: str
    not_before: datetime


class SpeedNote(Strict):
    """A speed check (:class:`registry.deploy.contract.Speed`); ``recorded`` once it is a row of the store."""

    first_token_seconds: float
    tokens_per_second: float
    tokens: int
    recorded: bool = False


class Standing(Strict):
    """One target and mailbox. ``served`` is the promotion that the target serves, since ``since``; ``step`` is what is
    being done to reach a newer one ("" at rest), ``trouble`` why the last of ``tries`` in a row did not, at ``tried_at``.
    While ``doubtful``, callers may get another adapter than the one served: its alias was being moved."""

    target: str
    mailbox: str
    served: AdapterPromoted | None = None
    since: datetime | None = None
    step: str = ""
    doubtful: bool = False
    tries: int = 0
    tried_at: datetime | None = None
    trouble: str = ""
    leftovers: tuple[Leftover, ...] = ()
    speed: SpeedNote | None = None

    @property
    def ordinal(self) -> int:
        """The journal's number of the promotion that is served; 0 for none."""
        return 0 if self.served is None else self.served.journal_ordinal

    @property
    def adapter_id(self) -> str | None:
        return None if self.served is None else self.served.adapter_id


def want(home: Home, promotion: AdapterPromoted) -> bool:
    """Notes a promotion as what targets shall serve; False where a newer one, or this one, was noted before."""
    path = _path(home, WANTED, promotion.mailbox)
    with locked(private_dir(path.parent) / ".lock"):
        before = _read(path, AdapterPromoted)
        if before is not None and before.journal_ordinal >= promotion.journal_ordinal:
            return False
        write_atomic(path, promotion.model_dump_json().encode())
        return True


def wanted(home: Home) -> list[AdapterPromoted]:
    """What shall be served, by mailbox."""
    found = (_read(path, AdapterPromoted) for path in sorted(folder(home, WANTED).glob("*.json")))
    return [promotion for promotion in found if promotion is not None]


def standing(home: Home, target: str, mailbox: str) -> Standing:
    """How far a target is; raises ``DeployError`` when its file is damaged."""
    return _read(_path(home, target, mailbox), Standing) or Standing(target=target, mailbox=mailbox)


def write_standing(home: Home, now: Standing) -> Standing:
    """Replaces the target's file; returns what it was given."""
    write_atomic(_path(home, now.target, now.mailbox), now.model_dump_json(indent=1).encode() + b"\n")
    return now


def speed_recorded(home: Home, measured: Standing) -> None:
    """Notes that a speed is a row of the store now, unless another promotion has taken its place."""
    with deploying(home, measured.target):
        here = standing(home, measured.target, measured.mailbox)
        if here.speed is not None and here.ordinal == measured.ordinal:
            write_standing(home, here.model_copy(update={"speed": here.speed.model_copy(update={"recorded": True})}))


@contextmanager
def deploying(home: Home, target: str) -> Iterator[None]:
    """One process at a time deals with a target; others wait."""
    with locked(private_dir(folder(home, target)) / ".lock"):
        yield


def folder(home: Home, target: str) -> Path:
    """Where all is kept about a target."""
    return home.deployments / target


def _path(home: Home, target: str, mailbox: str) -> Path:
    return folder(home, target) / f"{mailbox}.json"


def _read(path: Path, kind: type[Note]) -> Note | None:
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise DeployError(
            f"{path} cannot be read ({str(error).splitlines()[0]})", hint="remove it: the target is then deployed to anew"
        ) from error
