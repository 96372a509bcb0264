"""A policy of the gate as a file that people read: the ``gate:`` group of the settings, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.config.configuration import load
from pipeline.config.settings import GateSettings
from pipeline.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Policy:
    """Margins under a name, which is the file's."""

    name: str
    gate: GateSettings


def read_policy(path: Path) -> Policy:
    """Reads a policy; what it leaves out has its default, so that the file alone says what the policy is.

    Raises ``ConfigError`` with every problem: a file that cannot be read, a key that is none, a value that cannot be, and
    settings that are no part of a policy.
    """
    settings = load(path, environment={})
    others = sorted(settings.model_fields_set - {"gate"})
    hint = "write it as configs/policies/default.yaml is written"
    if others:
        raise ConfigError([f"{path}: {name} is no part of a policy, only gate is" for name in others], hint=hint)
    if "gate" not in settings.model_fields_set:
        raise ConfigError([f"{path} holds no gate: group"], hint=hint)
    return Policy(path.stem, settings.gate)
