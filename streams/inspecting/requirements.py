"""Which of the packages that mailtide declares are here, and fit; nothing is imported to find out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata

from pipeline.installing import DISTRIBUTION

REQUIREMENT = re.compile(r"\s*(?P<name>[\w.-]+)\s*(?P<limits>[^;]*)(?:;\s*extra\s*==\s*[\"'](?P<extra>[\w-]+)[\"'])?")


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
    """Whether a release lies within limits such as ``<5.23,>=5.0`` (PEP 440); a build before a release counts as well."""
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:  # is told as missing itself; without it nothing more can be said of the others
        return True
    return SpecifierSet(limits).contains(version, prereleases=True)


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
