"""Why a run's checkpoint was chosen, as the run wrote it down."""

from __future__ import annotations

import json
from typing import Any

from pipeline.home import Home


def selection_of(home: Home, run_id: str) -> dict[str, Any] | None:
    """``selection`` of the run's ``eval_results.json`` (docs/evaluation.md); None where the file is gone, cannot be read,
    or is of a version that did not write it."""
    try:
        found = json.loads((home.run(run_id) / "eval_results.json").read_bytes()).get("selection")
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, dict) else None
