"""A Maildir as delivery agents and mail programs use it: delivered through ``tmp``, read and flagged by renaming."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.archives import mail

FIRST = 1_700_000_000


class Maildir:
    """A folder with ``tmp``, ``new`` and ``cur``. Mails are named by the number that they were delivered with."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for folder in ("tmp", "new", "cur"):
            (path / folder).mkdir(parents=True)

    def deliver(self, number: int, raw: bytes | None = None, *, to: str = "new", name: str | None = None) -> str:
        """Puts a mail in, by default ``mail(number)``, delivered that many seconds after the first; gives its base name."""
        base = name or f"{FIRST + number}.M{number}P7.host"
        temporary = self.path / "tmp" / base
        temporary.write_bytes(mail(number) if raw is None else raw)
        os.utime(temporary, (FIRST + number, FIRST + number))
        temporary.rename(self.path / to / (base if to == "new" else f"{base}:2,S"))
        return base

    def where(self, base: str) -> Path:
        """Where a mail lies now."""
        (found,) = [path for folder in ("new", "cur") for path in (self.path / folder).glob(f"{base}*")]
        return found

    def flag(self, base: str, flags: str = "S", uid: str = "") -> None:
        """Moves a mail to ``cur``, with these flags and no others."""
        self.where(base).rename(self.path / "cur" / f"{base}{uid}:2,{flags}")

    def age(self) -> None:
        """Makes the folders look as if nothing had changed for an hour."""
        for folder in ("new", "cur"):
            then = (self.path / folder).stat().st_mtime - 3600
            os.utime(self.path / folder, (then, then))
