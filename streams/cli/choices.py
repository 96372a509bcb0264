"""The table that says why a checkpoint became the adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streams.cli.output import print_table, say


def tell_choice(choice: Mapping[str, Any]) -> None:
    """Every checkpoint of a run by what may choose, each part with where it stands from 0 (worst) to 1 (best)."""
    parts = list(dict.fromkeys(part for row in choice["rows"] for part in row["parts"]))
    rows = []
    for row in choice["rows"]:
        cells = (_part(row["parts"].get(part), row["rescaled"].get(part)) for part in parts)
        score = "" if row["score"] is None or choice["rule"] == "val_loss" else f"{row['score']:.3f}"
        notes = [*row["broken"], *(() if row["kept"] else ("weights gone",)), *(("on the front",) if row["front"] else ())]
        rows.append(("*" if row["chosen"] else "", row["checkpoint"], *cells, score, ", ".join(notes)))
    weights = ", ".join(f"{part} {weight:.2f}" for part, weight in choice["weights"].items())
    print_table(
        ("", "checkpoint", *parts, "score", "notes"),
        rows,
        title=f"Why this checkpoint, by {choice['rule']}{f' (weights: {weights})' if weights else ''}",
    )
    say(f"{choice['chosen']}: {choice['reason']}.")


def _part(value: float | None, rescaled: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if rescaled is None else f"{value:.4g} ({rescaled:.2f})"
