"""A base from the Hub: from its cache on this disk, filled first where the settings allow it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from pipeline.capacity.bases import folder_here, not_here, require_usable
from pipeline.config.settings import ModelSettings
from pipeline.errors import RunError

FETCHED = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja")
"""The files of a repository that are fetched."""


def here_or_fetched(name: str, model: ModelSettings) -> Path:
    """A local folder as it is; a Hub id from the Hub's cache on this disk. What is not whole is fetched where downloads are
    allowed. Raises ``RunError`` where it is not there, or cannot be fetched."""
    folder = folder_here(name, model.revision)
    if not model.allow_download or Path(name).expanduser().is_dir():
        if folder is None:
            raise not_here(name)
        return folder
    return folder if folder is not None and _is_whole(folder, model.objective) else _fetch(name, model.revision)


def _is_whole(folder: Path, objective: str) -> bool:
    try:
        require_usable(folder, objective)
    except RunError:
        return False
    return True


def _fetch(name: str, revision: str | None) -> Path:
    """Downloads in a process of its own, as a training process was told at its start never to ask the network."""
    program = (
        "import json, sys; from huggingface_hub import snapshot_download; name, revision, patterns = json.load(sys.stdin); "
        "print(snapshot_download(name, revision=revision, allow_patterns=patterns))"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps([name, revision, FETCHED]),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RunError(f"the base model {name} cannot be fetched ({said})", hint="check the name and the network")
    return Path(done.stdout.strip().splitlines()[-1])
