"""Which of the packages that mailtide declares are here, and fit; nothing is imported to find out."""

from __future__ import annotations

import json
import re
import shlex
import sys
from dataclasses import dataclass
from importlib import metadata
from urllib.parse import unquote, urlsplit

DISTRIBUTION = "mailtide"
REQUIREMENT = re.compile(r"\s*(?P<name>[\w.-]+)\s*(?P<limits>[^;]*)(?:;\s*extra\s*==\s*[\"'](?P<extra>[\w-]+)[\"'])?")
LIMIT = re.compile(r"(>=|<=|<|>|==|!=)\s*([\d.]+)")


@dataclass(frozen=True, slots=True)
class Requirement:
    """A declared package: its version limits as written, the extra that asks for it ("" for all), what is installed."""

    name: str
    limits: str
    extra: str
    installed: str | None

    @property
    def fits(self) -> bool:
        return self.installed is not None and within(self.installed, self.limits)


def declared() -> list[Requirement] | None:
    """What this installation of mailtide asks for, or None where it is not installed as a distribution."""
    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return None
    found = [match for line in lines if (match := REQUIREMENT.match(line))]
    return [
        Requirement(match["name"], match["limits"].strip(), match["extra"] or "", _installed(match["name"]))
        for match in found
    ]


def within(version: str, limits: str) -> bool:
    """Whether a release lies within limits such as ``<5.23,>=5.0``; a suffix (``+cpu``, ``rc1``) is ignored."""
    mine = _numbers(version)
    for sign, bound in LIMIT.findall(limits):
        other = _numbers(bound)
        width = max(len(mine), len(other))
        left, right = (numbers + (0,) * (width - len(numbers)) for numbers in (mine, other))
        holds = {
            ">=": left >= right,
            "<=": left <= right,
            "<": left < right,
            ">": left > right,
            "==": left == right,
            "!=": left != right,
        }
        if not holds[sign]:
            return False
    return True


def install_command(extra: str) -> str:
    """The command that installs mailtide again from where it came, with the packages of ``extra``."""
    source = DISTRIBUTION
    editable = ""
    try:
        origin = metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        origin = None
    if origin is not None:
        told = json.loads(origin)
        source = unquote(urlsplit(told["url"]).path) if told["url"].startswith("file:") else told["url"]
        editable = "-e " if told.get("dir_info", {}).get("editable") else ""
    target = f"{source}[{extra}]" if extra else source
    return f"{shlex.quote(sys.executable)} -m pip install {editable}{shlex.quote(target)}"


def _numbers(version: str) -> tuple[int, ...]:
    release = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, release[0].split("."))) if release else ()


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
