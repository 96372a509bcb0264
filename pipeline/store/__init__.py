"""The append-only store: two DuckDB files behind one door."""

from pipeline.store.frozen import Versions
from pipeline.store.store import Store

__all__ = ["Store", "Versions"]
