"""Benchmark tasks as the settings name them, read and checked before any model is asked.

A task is one YAML file in the form of lm-evaluation-harness with its data beside it as JSON lines, so that it runs offline
and its digest covers all that it is: ``include`` and ``!function`` are refused.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import UsageError
from pipeline.home import Home

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "benchmarks"
"""The tasks that come with mailtide: of the repository, or installed beside the packages."""

POINTS = {"acc": 100.0, "acc_norm": 100.0, "exact_match": 100.0, "bits_per_byte": -100.0}
"""Points per unit of a metric, negative where less is better. A point is one question in a hundred, or a hundredth of a bit
per byte of text."""

EXAMPLE = "configs/benchmarks/arithmetic.yaml shows how one is written"


@dataclass(frozen=True, slots=True)
class Task:
    """``config`` is what the harness takes, with absolute paths; ``metric`` is the first of its metrics, the one that
    counts; ``weight`` that of the task in the mean over tasks; ``docs`` are its items as JSON lines. ``sha256`` is of the
    file and its data: the same digest is the same task."""

    name: str
    path: Path
    config: Mapping[str, Any]
    metric: str
    weight: float
    docs: tuple[str, ...]
    sha256: str


def known_tasks() -> list[str]:
    """Names of the tasks that come with mailtide."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def is_path(name: str) -> bool:
    """Whether a task is named by where it lies: a file, or a folder of files."""
    return "/" in name or name.endswith(".yaml")


def read_tasks(named: Sequence[str], home: Home) -> list[Task]:
    """The tasks of these names, files and folders, paths being relative to the home; each once.

    Raises ``UsageError`` for a name that is no task and a file that is none, naming what is wrong with it.
    """
    paths = dict.fromkeys(path for name in named for path in _paths(name, home))
    tasks = [_read(path) for path in paths]
    for task in tasks:
        twice = [other.path for other in tasks if other.name == task.name]
        if len(twice) > 1:
            raise UsageError(f"{twice[0]} and {twice[1]} are both called {task.name}", hint="call one of them otherwise")
    return tasks


def _paths(name: str, home: Home) -> list[Path]:
    if not is_path(name):
        path = FOLDER / f"{name}.yaml"
        if not path.is_file():
            known = ", ".join(known_tasks()) or "none"
            raise UsageError(
                f"there is no benchmark task {name!r}", hint=f"known are {known}; a path names a task file or a folder"
            )
        return [path]
    path = home.root / Path(name).expanduser()
    found = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    if not found or not all(one.is_file() for one in found):
        raise UsageError(f"{path} holds no benchmark task", hint=EXAMPLE)
    return found


def _read(path: Path) -> Task:
    try:
        source = path.read_bytes()
        told = yaml.safe_load(source)
    except (OSError, yaml.YAMLError) as error:
        raise _wrong(path, str(error).splitlines()[0]) from error
    if not isinstance(told, dict) or not isinstance(told.get("task"), str):
        raise _wrong(path, "it has no name under `task`")
    if "include" in told:
        raise _wrong(path, "`include` is not supported: a task is one file")
    if told.get("dataset_path") != "json":
        raise _wrong(path, "`dataset_path` must be json: a task brings its data along, as nothing is fetched")
    files = (told.get("dataset_kwargs") or {}).get("data_files")
    if not isinstance(files, dict) or not files or not all(isinstance(name, str) for name in files.values()):
        raise _wrong(path, "`dataset_kwargs.data_files` must name a file for each split")
    split = told.get("test_split")
    if split not in files:
        raise _wrong(path, "`test_split` must be one of `dataset_kwargs.data_files`")
    data = {name: path.parent / file for name, file in files.items()}
    contents = {name: _bytes(path, file) for name, file in data.items()}
    digest = hashlib.sha256(source)
    for name in sorted(contents):
        digest.update(hashlib.sha256(contents[name]).digest())
    return Task(
        name=told["task"],
        path=path,
        config={**told, "dataset_kwargs": {"data_files": {name: str(file) for name, file in data.items()}}},
        metric=_metric(path, told),
        weight=_weight(path, told),
        docs=_docs(path, data[split], contents[split]),
        sha256=digest.hexdigest(),
    )


def _metric(path: Path, told: Mapping[str, Any]) -> str:
    listed = told.get("metric_list")
    first = listed[0] if isinstance(listed, list) and listed else None
    metric = first.get("metric") if isinstance(first, dict) else None
    if metric not in POINTS:
        raise _wrong(path, f"the first of `metric_list` must be one of {', '.join(POINTS)}, not {metric}")
    return str(metric)


def _weight(path: Path, told: Mapping[str, Any]) -> float:
    metadata = told.get("metadata") or {}
    weight = metadata.get("weight", 1) if isinstance(metadata, dict) else None
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
        raise _wrong(path, "`metadata.weight` must be a number above 0")
    return float(weight)


def _bytes(path: Path, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise _wrong(path, f"its data {file} cannot be read ({error.strerror or error})") from error


def _docs(path: Path, file: Path, content: bytes) -> tuple[str, ...]:
    lines = [line for line in content.decode("utf-8", "replace").splitlines() if line.strip()]
    for number, line in enumerate(lines, 1):
        try:
            right = isinstance(json.loads(line), dict)
        except ValueError:
            right = False
        if not right:
            raise _wrong(path, f"line {number} of its data {file} is no JSON object")
    if not lines:
        raise _wrong(path, f"its data {file} is empty")
    return tuple(lines)


def _wrong(path: Path, why: str) -> UsageError:
    return UsageError(f"{path} is no benchmark task: {why}", hint=EXAMPLE)
