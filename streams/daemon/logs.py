"""What the daemon says: lines for people, or one JSON object a line for programs, on stderr."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Literal

QUIET = ("aiokafka", "faust", "mode", "imapclient", "watchfiles", "asyncio")
"""Libraries that would tell of every step; only their warnings are passed on."""
SILENT = ("apscheduler",)
"""Warns of looks at the clock that it left out because one was still under way, which the next makes up for."""


class JsonLines(logging.Formatter):
    """Keys: at (ISO 8601, UTC), level, part, message, and error where there is a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "part": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up_logs(kind: Literal["text", "json"], handler: logging.Handler | None = None) -> None:
    """Sends every part's lines to ``handler``, stderr by default."""
    handler = handler or logging.StreamHandler()
    formatter = JsonLines() if kind == "json" else logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in SILENT:
        logging.getLogger(name).setLevel(logging.ERROR)
