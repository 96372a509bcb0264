"""``report.html`` in a run's folder: written after the verdict, and anew whenever it is asked for.

It quotes mail, so it is private (0600), and it is derived: all that it quotes is read from the store as it is written. To
erase a mail from it, remove the file; what is written afterwards quotes what is left.
"""

from __future__ import annotations

import logging
from pathlib import Path

from pipeline.home import Home, write_atomic
from pipeline.store import Store
from streams.report.page import page
from streams.report.story import gather_story

REPORT = "report.html"

log = logging.getLogger(__name__)


def write_report(store: Store, home: Home, named: str) -> Path:
    """Writes the report of a run, by its id or its adapter's, and returns its path; see :func:`gather_story`."""
    story = gather_story(store, home, named)
    path = home.run(story.request.run_id) / REPORT
    write_atomic(path, page(story).encode())
    return path


def try_to_write_report(store: Store, home: Home, run_id: str) -> None:
    """The same after a verdict, which a report that cannot be drawn must not undo: then the log says why."""
    try:
        write_report(store, home, run_id)
    except Exception as error:
        log.warning("run %s has no report.html (%s); `mailtide report %s` tries again", run_id, error, run_id)
