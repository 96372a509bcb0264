"""By which settings a run was made otherwise than the one that it continues."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.runs.requests import RunRequest


@dataclass(frozen=True, slots=True)
class Changed:
    """A setting by its name, as in ``train.lr``, before and now."""

    name: str
    before: Any
    now: Any


def changed_settings(before: RunRequest, now: RunRequest) -> tuple[Changed, ...]:
    """What of ``now`` is not as it was, in the order of the settings."""
    earlier = dict(_values("", before.settings.model_dump(mode="json")))
    later = dict(_values("", now.settings.model_dump(mode="json")))
    return tuple(
        Changed(name, earlier.get(name), later.get(name))
        for name in dict.fromkeys([*later, *earlier])
        if earlier.get(name) != later.get(name)
    )


def _values(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, part in value.items():
            yield from _values(f"{path}.{name}" if path else name, part)
    else:
        yield path, value
