"""Reads settings: defaults, then a YAML file, then ``MAILTIDE_...`` variables, then ``--set``; every mistake at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.config.settings import MailboxSettings, Settings
from pipeline.errors import ConfigError
from pipeline.home import Home, write_atomic

PREFIX = "MAILTIDE_"
EVERY_SETTING = "configs/default.yaml lists every setting and what it means"
NOT_SETTINGS = {"MAILTIDE_HOME", "MAILTIDE_DATA"}
NUMBER = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+\Z")


def load(
    file: Path | None,
    *,
    environment: Mapping[str, str],
    overrides: Sequence[str] = (),
) -> Settings:
    """The settings from ``file`` (if any), the environment and ``KEY=VALUE`` overrides, later ones winning.

    ``MAILTIDE_TRAIN__EPOCHS=3`` and ``train.epochs=3`` name the same setting. Raises ``ConfigError`` with every problem.
    """
    tree: dict[str, Any] = _read(file) if file is not None else {}
    problems: list[str] = []
    for name, value in sorted(environment.items()):
        if name.startswith(PREFIX) and name not in NOT_SETTINGS:
            _put(tree, name[len(PREFIX) :].lower().split("__"), value, problems)
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            problems.append(f"--set {override!r} is not KEY=VALUE")
        else:
            _put(tree, key.strip().split("."), value, problems)
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        problems.extend(_sentence(problem) for problem in error.errors())
        raise ConfigError(problems, hint=EVERY_SETTING) from None
    if problems:
        raise ConfigError(problems, hint=EVERY_SETTING)
    return settings


def read_home(home: Home, *, environment: Mapping[str, str], overrides: Sequence[str] = ()) -> Settings:
    """The settings of an existing home."""
    return load(home.config if home.config.exists() else None, environment=environment, overrides=overrides)


def write_home(home: Home, settings: Settings) -> None:
    """Keeps in the home what differs from the defaults, so that a better default reaches homes that did not choose."""
    text = yaml.safe_dump(settings.model_dump(mode="json", exclude_defaults=True), sort_keys=False)
    header = "# Settings of this mailtide home; what is not listed has its default (see configs/default.yaml).\n"
    write_atomic(home.config, (header + ("" if text == "{}\n" else text)).encode())


def rows(values: BaseModel | None = None, prefix: str = "") -> list[tuple[str, str, str]]:
    """Every setting as (name, value, meaning), for the documentation; the defaults unless ``values`` are given."""
    group = Settings() if values is None else values
    found: list[tuple[str, str, str]] = []
    for name, field in type(group).model_fields.items():
        value = getattr(group, name)
        if isinstance(value, BaseModel):
            found.extend(rows(value, f"{prefix}{name}."))
        else:
            shown = yaml.safe_dump(_plain(value), default_flow_style=True).removesuffix("...\n").strip()
            found.append((prefix + name, shown, field.description or ""))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: item.model_dump(mode="json") if isinstance(item, BaseModel) else item for name, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _read(file: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([f"{file}: {error.strerror}"], hint="name a file that can be read") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError([f"{file} is not YAML: {' '.join(str(error).split())}"]) from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError([f"{file} holds a {type(tree).__name__}, not settings by name"])
    return tree


def _put(tree: dict[str, Any], path: Sequence[str], value: str, problems: list[str]) -> None:
    """Sets one value, read as YAML, so that ``null``, numbers and lists mean what they do in the file."""
    node = tree
    for name in path[:-1]:
        child = node.setdefault(name, {})
        if not isinstance(child, dict):
            problems.append(f"{'.'.join(path)}: {name} is a value, not a group")
            return
        node = child
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        parsed = value
    # YAML 1.1 takes 5e-3 for a string.
    node[path[-1]] = float(value) if isinstance(parsed, str) and NUMBER.match(value.strip()) else parsed


def _sentence(problem: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    kind = problem["type"]
    if kind == "extra_forbidden":
        meant = _meant(where)
        return f"{where} is not a setting" + (f" (did you mean {meant}?)" if meant else "")
    message = str(problem["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    given = "" if kind == "value_error" else f", not {problem['input']!r}"
    return f"{where}: {message}{given}" if where else message


def _meant(where: str) -> str | None:
    """The setting that a mistyped name is nearest to among those of its group, or one of that name in another group."""
    group, dot, last = where.rpartition(".")
    every = [name for name, _, _ in rows()]
    if group.startswith("mailboxes."):
        beside = list(MailboxSettings.model_fields)
    else:
        beside = list(
            dict.fromkeys(name[len(group + dot) :].split(".")[0] for name in every if name.startswith(group + dot))
        )
        elsewhere = [name for name in every if name.endswith(f".{last}")]
        if elsewhere:
            return elsewhere[0]
    near = difflib.get_close_matches(last, beside, n=1)
    return group + dot + near[0] if near else None
