"""How long a text is, by a measure that is frozen with the store, so that chunks never depend on the model trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipeline.errors import ConfigError
from pipeline.installing import install_hint

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Ruler(Protocol):
    """Counts tokens; the same text always gives the same number."""

    def count(self, text: str) -> int: ...


class BytesRuler:
    """UTF-8 bytes over four, rounded up: near what byte-level BPE needs for mail, and the same for ever."""

    def count(self, text: str) -> int:
        return -(-len(text.encode()) // 4)


class TokenizerRuler:
    """Counts by a tokenizer, without the special tokens that a model's template adds."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.no_truncation()  # files saved by a trainer often cut at the model's context, which would hide length
        tokenizer.no_padding()
        self._tokenizer = tokenizer

    def count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)


def load_ruler(name: str) -> Ruler:
    """The ruler that a store names: ``bytes``, or the path of a ``tokenizer.json``.

    Raises ``ConfigError`` when the file is missing or is no tokenizer, or when tokenizers are not installed.
    """
    if name == "bytes":
        return BytesRuler()
    path = Path(name)
    if not path.is_file():
        raise ConfigError([f"chunk.ruler: no file {name!r}"], hint="name bytes, or the path of a tokenizer.json")
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ConfigError(["chunk.ruler: tokenizers is not installed"], hint=install_hint("train")) from error
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ConfigError(
            [f"chunk.ruler: {name!r} is no tokenizer: {error}"], hint="it must be a tokenizer.json"
        ) from error
    return TokenizerRuler(tokenizer)
