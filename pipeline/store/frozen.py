"""Settings and versions that freeze with a store: were one to change, what is stored would not mean what it says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError
from pipeline.home import sha256_file
from pipeline.versions import Versions

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pipeline.config.settings import Settings


ADDED: dict[str, object] = {"privacy.detectors": []}
"""What stores hold that were made before a setting was there: its value then, and for good."""


def frozen_settings(settings: Settings) -> dict[str, object]:
    """The settings that freeze, by name. A tokenizer counts as what its file holds, not as where it lies, a detector with
    the version of its package. Raises ``ConfigError`` where one of them is not there."""
    return {
        "seed": settings.seed,
        "split.train": settings.split.train,
        "split.val": settings.split.val,
        "split.test": settings.split.test,
        "chunk.size": settings.chunk.size,
        "chunk.overlap": settings.chunk.overlap,
        "chunk.max_tokens": settings.chunk.max_tokens,
        "chunk.ruler": _ruler(settings.chunk.ruler),
        "privacy.mask_credentials": settings.privacy.mask_credentials,
        "privacy.mask_personal": sorted(settings.privacy.mask_personal),
        "privacy.detectors": _detectors(settings),
        "privacy.canaries": settings.privacy.canaries,
    }


def frozen_versions(versions: Versions) -> dict[str, object]:
    return {f"{name} version": value for name, value in asdict(versions).items()}


def freeze(connection: DuckDBPyConnection, values: Mapping[str, object]) -> None:
    for name, value in values.items():
        connection.execute("INSERT INTO frozen_values VALUES (?, ?)", [name, json.dumps(value)])


def disagreements(connection: DuckDBPyConnection, settings: Settings | None, versions: Versions | None) -> list[str]:
    """One sentence with both values for each frozen one that ``settings`` or ``versions`` would change."""
    rows = connection.execute("SELECT name, value FROM frozen_values").fetchall()
    held = ADDED | {name: json.loads(value) for name, value in rows}
    wanted: dict[str, object] = {}
    if settings is not None:
        wanted |= frozen_settings(settings)
    if versions is not None:
        wanted |= frozen_versions(versions)
    problems = [
        _sentence(name, held[name], value) for name, value in wanted.items() if name in held and held[name] != value
    ]
    if settings is not None:
        clocks = dict(connection.execute("SELECT mailbox, clock FROM mailbox_rows").fetchall())
        problems += [
            _sentence(f"mailboxes.{name}.clock", clocks[name], mailbox.clock.value)
            for name, mailbox in settings.mailboxes.items()
            if "clock" in mailbox.model_fields_set and clocks.get(name, mailbox.clock.value) != mailbox.clock.value
        ]
    return problems


def _sentence(name: str, held: object, wanted: object) -> str:
    if name.endswith(" version"):
        return f"{name} is {wanted} in this mailtide, but {held} in the store"
    if name == "privacy.detectors" and wanted and held:
        return (
            f"{name} is {_shown(wanted)} on this machine, but frozen as {_shown(held)} in the store: install that version"
        )
    return f"{name} is {_shown(wanted)} in the settings, but frozen as {_shown(held)} in the store"


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _detectors(settings: Settings) -> list[str]:
    if not settings.privacy.detectors:
        return []
    from pipeline.privacy.detectors import installed_versions

    return installed_versions(settings.privacy.detectors)


def _ruler(name: str) -> str:
    if name == "bytes":
        return name
    try:
        return f"tokenizer {sha256_file(Path(name))}"
    except OSError as error:
        raise ConfigError([f"chunk.ruler {name} cannot be read: {error.strerror}"]) from error
