"""pyarrow, without the half second in which its first array imports pandas where that is installed: nothing of ours hands
it data frames. It asks once and remembers; whoever imports pandas itself gets it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

import pyarrow as pa


class _NoPandas(MetaPathFinder):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("not now", name=fullname)


if "pandas" not in sys.modules:
    _hidden = _NoPandas()
    sys.meta_path.insert(0, _hidden)
    try:
        pa.array([""])
    finally:
        sys.meta_path.remove(_hidden)

__all__ = ["pa"]
