"""The sheet of a spot check: held-out mails, the real replies, and what two adapters wrote in their place.

It holds text of mail, lies beside the runs (0600), and is derived: it may be removed at any time, and is then made anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from pipeline.config.settings import ModelSettings
from pipeline.home import write_atomic
from pipeline.runs.requests import AdapterRef, BaseRef, ShardRef
from pipeline.runs.runfiles import Exclusions
from pipeline.strict import Strict


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: ``name`` as losses bear it, ``adapter`` None for the bare base."""

    name: str
    adapter: AdapterRef | None


@dataclass(frozen=True, slots=True)
class Check:
    """All that a sheet follows from. At most ``n`` replies by the hash that ``seed`` gives them, so that a larger ``n``
    asks about the same and more; written in at most ``tokens`` tokens. ``min_threads``: see
    :mod:`pipeline.sampling.halves`."""

    mailbox: str
    sides: tuple[Side, Side]
    base: BaseRef
    model: ModelSettings
    shards: tuple[ShardRef, ...]
    exclusions: Exclusions
    min_threads: int
    n: int
    seed: int
    tokens: int

    @property
    def digest(self) -> str:
        """Names the sheet: the same digest, the same sheet."""
        told = {
            "sides": [[side.name, side.adapter.sha256 if side.adapter else ""] for side in self.sides],
            "base": self.base.base_id,
            "model": self.model.model_dump(mode="json"),
            "shards": [shard.sha256 for shard in self.shards],
            "exclusions": [sorted(self.exclusions.threads), sorted(self.exclusions.chunks)],
            "draw": [self.min_threads, self.n, self.seed, self.tokens],
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


class Line(Strict):
    """One reply: the mail it answers, its real words, and by side what was written. ``read_sha256`` is the digest of what
    the model read; the leads are author and date."""

    message_key: str
    thread_id: str
    subject: str
    asked_lead: str
    asked: str
    real_lead: str
    real: str
    read_sha256: str
    written: dict[str, str]


class Sheet(Strict):
    """The lines in the order in which they are asked about; ``digest`` is that of the :class:`Check`."""

    digest: str
    tokens: int
    lines: tuple[Line, ...]


def sheet_path(folder: Path, sides: Sequence[Side]) -> Path:
    """Where the sheet of two adapters lies."""
    return folder / f"{'-'.join(side.name.replace(':', '_') for side in sides)}.json"


def write_sheet(path: Path, sheet: Sheet) -> None:
    """Replaces the sheet of the same two adapters."""
    write_atomic(path, sheet.model_dump_json(indent=1).encode())


def read_sheet(path: Path) -> Sheet | None:
    """None where there is none that can be read: it is made anew."""
    try:
        return Sheet.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def written_before(folder: Path, names: Collection[str], tokens: int) -> Mapping[tuple[str, str], str]:
    """What sheets hold of these adapters' replies, by name and digest of what was read."""
    sheets = (read_sheet(path) for path in sorted(folder.glob("*.json")))
    return {
        (name, line.read_sha256): text
        for sheet in sheets
        if sheet is not None and sheet.tokens == tokens
        for line in sheet.lines
        for name, text in line.written.items()
        if name in names
    }
