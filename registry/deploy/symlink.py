"""The champion as a symbolic link: ``champions/<mailbox>`` points at the folder of the adapter that serves.

A reader follows the link and sees one whole adapter or the other. Promotions may arrive twice and out of order; beside
the link lies the number of the newest one taken, and an older one changes nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from pipeline.errors import DeployError, RegistryError
from pipeline.events import AdapterPromoted
from pipeline.home import Home, fsync_dir, private_dir, sha256_folder, write_atomic
from pipeline.strict import Strict
from registry.deploy.contract import Speed


class Taken(Strict):
    """The promotion that the link shows, or is about to."""

    journal_ordinal: int
    adapter_id: str


class Symlink:
    """The link as a deploy target: there is nothing to load, and its flip is one rename."""

    name = "symlink"
    mailbox: str | None = None
    drain_seconds = 0.0

    def __init__(self, home: Home) -> None:
        self._home = home

    def load(self, promotion: AdapterPromoted) -> None:
        """Nothing: the adapter's folder is here."""

    def check(self, promotion: AdapterPromoted) -> None:
        """Nothing: its bytes were checked."""

    def flip(self, promotion: AdapterPromoted) -> None:
        take(self._home, promotion)

    def confirm(self, promotion: AdapterPromoted) -> None:
        link = self._home.champion_link(promotion.mailbox)
        if not link.is_symlink() or link.resolve() != (self._home.root / promotion.path).resolve():
            raise DeployError(f"{link} does not point at {promotion.path}", hint="somebody else moves it: find out who")

    def unload(self, mailbox: str, adapter_id: str) -> None:
        """Nothing: an adapter's files stay, or there would be nothing to return to."""

    def withdraw(self, mailbox: str, adapter_id: str) -> None:
        link = self._home.champion_link(mailbox)
        if link.is_symlink() and link.readlink().name == adapter_id:
            link.unlink()

    def speed(self, promotion: AdapterPromoted) -> Speed | None:
        return None


def take(home: Home, promotion: AdapterPromoted) -> bool:
    """Points the mailbox's link at the promoted adapter; False when a newer promotion was taken before.

    Raises ``RegistryError`` when the adapter's folder is not the one that was promoted: the link stays as it is.
    """
    note = note_path(home, promotion.mailbox)
    taken = _read(note)
    if taken is not None and promotion.journal_ordinal < taken.journal_ordinal:
        return False
    folder = home.root / promotion.path
    if not folder.is_dir() or sha256_folder(folder) != promotion.sha256:
        raise RegistryError(
            f"{folder} is missing or was changed since {promotion.adapter_id} was promoted",
            hint="restore it from a backup, or return to another adapter with `mailtide registry rollback`",
        )
    # Noted before the link moves: after a crash between the two, this promotion is taken again and no older one is.
    about = Taken(journal_ordinal=promotion.journal_ordinal, adapter_id=promotion.adapter_id)
    write_atomic(note, about.model_dump_json().encode())
    point(home.champion_link(promotion.mailbox), folder)
    return True


def note_path(home: Home, mailbox: str) -> Path:
    """The file that remembers which promotion was taken."""
    return home.champion_link(mailbox).parent / f".{mailbox}.json"


def _read(note: Path) -> Taken | None:
    try:
        return Taken.model_validate_json(note.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise RegistryError(f"{note} cannot be read", hint="delete it and return to the champion by hand") from error


def point(link: Path, folder: Path) -> None:
    """Replaces ``link`` in one step. The target is relative, so that a home can be moved."""
    private_dir(link.parent)
    if link.exists() and not link.is_symlink():
        raise RegistryError(f"{link} is in the way: it is not a link", hint="move it elsewhere")
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(folder, link.parent), target_is_directory=True)
    temporary.replace(link)
    fsync_dir(link.parent)
