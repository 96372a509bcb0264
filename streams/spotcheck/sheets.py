"""The sheet of a check: what lies there from an earlier sitting, else made by the model, once."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.home import Home
from pipeline.runs.spotsheet import Check, Sheet, read_sheet, sheet_path, write_sheet, written_before
from streams.runner import require_training


def sheet_of(home: Home, check: Check, report: Callable[[int, int, str], None]) -> Sheet:
    """Loads a model only where a reply is lacking; the store should be closed, as that may take a while. ``report`` is told
    how many of how many replies are written."""
    folder = home.spot_checks(check.mailbox)
    path = sheet_path(folder, check.sides)
    sheet = read_sheet(path)
    if sheet is None or sheet.digest != check.digest:
        require_training()
        from retrain.evaluation.spot_replies import make_sheet

        known = written_before(folder, {side.name for side in check.sides}, check.tokens)
        sheet = make_sheet(home, check, known, report)
        write_sheet(path, sheet)
    return sheet
