"""What the settings ask of an adapter, held against what PEFT takes and what the adapter to be continued was made with:
before a run is asked for, and without loading torch."""

from __future__ import annotations

import ast
import difflib
import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.config.settings import TrainSettings
from pipeline.errors import RunError
from pipeline.home import Home
from pipeline.runs.requests import RunRequest, read_request

ADAPTER_CONFIG = "adapter_config.json"

OWN_SETTINGS = {"r": "train.lora_r", "lora_alpha": "train.lora_alpha", "lora_dropout": "train.lora_dropout"}
"""Fields of LoraConfig that have settings of their own."""

PLAIN: dict[str, type | tuple[type, ...]] = {
    "bool": bool,
    "int": int,
    "float": (int, float),
    "str": str,
    "dict": dict,
    "list": list,
}
"""Kinds of values as their names are written."""


def require_known_fields(train: TrainSettings) -> None:
    """Raises ``RunError`` when ``train.lora`` names a field that PEFT does not know, or that has a setting of its own, or
    gives it a value of another kind than it is declared with."""
    for name, value in train.lora.items():
        if name in OWN_SETTINGS:
            raise RunError(f"train.lora sets {name}, which is a setting of its own", hint=f"use {OWN_SETTINGS[name]}")
        known = _fields_of_peft()
        if known and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise RunError(
                f"train.lora sets {name}, which PEFT's LoraConfig does not know",
                hint=f"it knows {near[0]}" if near else "see the documentation of PEFT's LoraConfig",
            )
        if known and not _takes(known[name], value):
            raise RunError(
                f"train.lora sets {name} to {json.dumps(value)}, which PEFT's LoraConfig does not take",
                hint=f"it takes {ast.unparse(known[name])}",
            )


def require_continuable(home: Home, request: RunRequest) -> None:
    """Raises ``RunError`` when the settings ask for another adapter than the one that the run would continue, which keeps
    rank, scale, dropout and all further fields as it was made with."""
    if request.parent is None:
        return
    try:
        config = json.loads((home.root / request.parent.path / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        shape = (config["r"], config["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError):
        return  # the run compares its digest, and says that it was changed
    train, named = request.settings.train, f"the parent adapter {request.parent.adapter_id}"
    if shape != (train.lora_r, train.lora_alpha):
        raise RunError(
            f"{named} has rank {shape[0]} and alpha {shape[1]}, the settings ask for {train.lora_r} and {train.lora_alpha}",
            hint="set train.lora_r and train.lora_alpha back, or model.init_from to fresh",
        )
    dropout = config.get("lora_dropout", train.lora_dropout)
    if dropout != train.lora_dropout:
        raise RunError(
            f"{named} was made with a dropout of {dropout:g}, which it keeps, and the settings ask for "
            f"{train.lora_dropout:g}",
            hint=f"set train.lora_dropout to {dropout:g}, or model.init_from to fresh",
        )
    made_with = _made_with(home, request)
    if made_with is not None and made_with != train.lora:
        raise RunError(
            f"{named} was made with train.lora {json.dumps(made_with)}, which it keeps, and the settings ask for "
            f"{json.dumps(train.lora)}",
            hint="set train.lora back, or model.init_from to fresh",
        )


def _made_with(home: Home, request: RunRequest) -> dict[str, Any] | None:
    """``train.lora`` of the run that made the first adapter of the line; None where it came from another home."""
    try:
        while request.parent is not None:
            request = read_request(home.run(request.parent.run_id))
    except RunError:
        return None
    return request.settings.train.lora


@cache
def _fields_of_peft() -> dict[str, ast.expr]:
    """The fields of LoraConfig and what kind each is of, from the text of the PEFT that is installed: importing it takes
    seconds, and torch. None of them where it is not here, or written in another way; then a run finds out."""
    spec = importlib.util.find_spec("peft")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        try:
            tree = ast.parse((Path(place) / "tuners" / "lora" / "config.py").read_text(encoding="utf-8"))
        except (OSError, SyntaxError):
            continue
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name == "LoraConfig":
                told = [line for line in node.body if isinstance(line, ast.AnnAssign)]
                return {line.target.id: line.annotation for line in told if isinstance(line.target, ast.Name)}
    return {}


def _takes(kind: ast.expr, value: object) -> bool:
    """Whether a value from settings is of a kind that was read; one that cannot be told from here takes any."""
    match kind:
        case ast.Constant(value=None):
            return value is None
        case ast.Name(id=name) if name in PLAIN:
            return isinstance(value, PLAIN[name]) and (name == "bool" or not isinstance(value, bool))
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _takes(left, value) or _takes(right, value)
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return value is None or _takes(inner, value)
        case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=several)):
            return any(_takes(one, value) for one in several)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            return any(_is(literal, value) for literal in (inner.elts if isinstance(inner, ast.Tuple) else [inner]))
        case ast.Subscript(value=ast.Name(id="list"), slice=inner):
            return isinstance(value, list) and all(_takes(inner, one) for one in value)
        case ast.Subscript(value=ast.Name(id="dict")):
            return isinstance(value, dict)
        case ast.Subscript(value=ast.Name(id="tuple")):
            return isinstance(value, list)
    return True


def _is(literal: ast.expr, value: object) -> bool:
    """Whether a value is this literal; PEFT puts what may vary in one into brackets: "pissa_niter_[number of iters]"."""
    if not isinstance(literal, ast.Constant):
        return True
    named, bracket, _ = str(literal.value).partition("[")
    return str(value).startswith(named) if bracket else literal.value == value
