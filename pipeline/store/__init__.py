"""The append-only store: two DuckDB files behind one door."""

from pipeline.store.store import Store
from pipeline.versions import Versions

__all__ = ["Store", "Versions"]
