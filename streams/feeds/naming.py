"""How a feed of files is named: alike whenever the same path is read, whether by an import or by the daemon."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

LABEL_LENGTH = 40


def feed_name(mailbox: str, path: Path) -> str:
    """``MAILBOX.LABEL-DIGEST``: the file's name in letters that any file system takes, and 8 hex digits of its whole path.

    A folder whose name begins with a dot (Maildir++ keeps ``.Sent`` beside ``cur``) is labelled with its parent's name too.
    """
    label = path.parent.name + path.name if path.name.startswith(".") else path.name
    word = re.sub(r"[^a-z0-9._-]+", "-", label.lower())[:LABEL_LENGTH]
    return f"{mailbox}.{word}-{hashlib.sha256(bytes(path)).hexdigest()[:8]}"


def path_text(path: Path) -> str:
    """The path as text, for people: what in it is no UTF-8, as in names that an older system wrote, becomes ``\\xe4``."""
    return bytes(path).decode("utf-8", "backslashreplace")
