"""The command that brings what is missing: mailtide installed again from where it came, with an extra."""

from __future__ import annotations

import json
import shlex
import sys
from importlib import metadata
from urllib.parse import unquote, urlsplit

DISTRIBUTION = "mailtide"


def install_command(extra: str) -> str:
    """The command that installs mailtide again from where it came, with the packages of ``extra`` ("" for none)."""
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


def install_hint(extra: str) -> str:
    """The next step for whoever lacks a package of ``extra``."""
    return f"install it with `{install_command(extra)}`"
