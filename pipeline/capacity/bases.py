"""Whether a base model's folder holds what a run needs, told from its files alone: before a run is asked for, and by it."""

from __future__ import annotations

import importlib.util
import json
import struct
from pathlib import Path
from typing import Any

from pipeline.errors import RunError

CONFIG, TOKENIZER, TOKENIZER_CONFIG = "config.json", "tokenizer.json", "tokenizer_config.json"
INDEX, WEIGHTS = "model.safetensors.index.json", "model.safetensors"
CAUSAL_ENDINGS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""How the classes of models that write text end; those of others end in ForMaskedLM, Model, ForSequenceClassification."""

POINTER = b"version https://git-lfs"
"""What lies in place of the weights where a repository was cloned without Git LFS."""

FETCH = "fetch it again, or set model.base to another model"


def require_usable(folder: Path, objective: str) -> None:
    """Raises ``RunError`` unless the folder holds a causal model, whole and in safetensors, with a tokenizer; under
    ``reply`` with a chat template too."""
    config = _read(folder, CONFIG)
    _require_causal(folder, config)
    for name in weight_files(folder):
        _require_whole(folder / name)
    _read(folder, TOKENIZER)
    if objective == "reply" and not _has_chat_template(folder):
        raise RunError(
            f"the base model in {folder} has no chat template, which model.objective reply writes threads with",
            hint="set model.base to a model that was made for conversations, or model.objective to cpt",
        )


def folder_here(name: str, revision: str | None) -> Path | None:
    """Where a base lies on this disk: a folder, or a Hub id's place in the Hub's cache; None where it does not."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if importlib.util.find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, CONFIG, revision=revision)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def not_here(name: str) -> RunError:
    """What is said of a base that is not on this disk, and may not be fetched."""
    if name.startswith(("/", "./", "../", "~")):
        return RunError(f"there is no folder {name}, which model.base names", hint="set model.base to a model's folder")
    return RunError(
        f"the base model {name} is neither a folder nor in the Hub's cache on this disk",
        hint="set model.allow_download to true to fetch it once, or model.base to a folder",
    )


def _require_causal(folder: Path, config: dict[str, Any]) -> None:
    named = [str(name) for name in config.get("architectures") or ()]
    causal = not named or any(name.endswith(CAUSAL_ENDINGS) for name in named)
    if config.get("is_encoder_decoder") or not causal:
        kind = ", ".join(named) or str(config.get("model_type", "unknown"))
        raise RunError(
            f"the base model in {folder} is no causal language model ({kind})",
            hint="set model.base to a model that writes text from left to right",
        )


def weight_files(folder: Path) -> list[str]:
    """The names of the files that hold the weights. Raises ``RunError`` where there are none in safetensors."""
    if (folder / INDEX).is_file():
        placed = _read(folder, INDEX).get("weight_map")
        if not isinstance(placed, dict) or not placed:
            raise RunError(f"{folder / INDEX} is damaged (it names no file of weights)", hint=FETCH)
        return sorted(set(map(str, placed.values())))
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    if pickled:
        raise RunError(
            f"the base model in {folder} has its weights in {pickled[0]}, which could run code when it is read",
            hint="use a copy in safetensors",
        )
    raise RunError(f"the base model in {folder} has no {WEIGHTS}", hint=FETCH)


def _require_whole(path: Path) -> None:
    """A safetensors file is eight bytes of length, a header in JSON, and the tensors where the header says they are."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if file.read(len(POINTER)) == POINTER:
                raise RunError(f"{path} is a pointer of Git LFS, not the weights", hint="fetch them with `git lfs pull`")
            file.seek(0)
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length)) if length <= size else {}
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing", hint=FETCH) from error
    except struct.error as error:
        raise RunError(f"{path} is cut short: {size:,} bytes", hint=FETCH) from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is damaged ({error})", hint=FETCH) from error
    ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    whole = 8 + length + max(ends, default=0)
    if size < whole:
        raise RunError(f"{path} is cut short: {size:,} of {whole:,} bytes", hint=FETCH)


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    return (folder / TOKENIZER_CONFIG).is_file() and bool(_read(folder, TOKENIZER_CONFIG).get("chat_template"))


def _read(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"the base model in {folder} has no {name}", hint=FETCH) from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is damaged ({error})", hint=FETCH) from error
    if not isinstance(found, dict):
        raise RunError(f"{path} is damaged (no JSON object)", hint=FETCH)
    return found
