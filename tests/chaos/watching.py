"""What can be seen of an installation from outside, without asking the part that was killed how it feels."""

from __future__ import annotations

from typing import Any

from pipeline.errors import MailtideError
from pipeline.home import Home
from registry.decide import DECIDED
from streams.remote_store import RemoteStore

CLAIMED = frozenset({"request.json", "exclusions.parquet", "known_losses.parquet", "receipt.json"})
"""Files of a run that its owner writes, not the process that trains."""

VERDICTS = ", ".join(f"'{status}'" for status in DECIDED)
UNDECIDED = f"SELECT run_id FROM requests WHERE run_id NOT IN (SELECT run_id FROM run_events WHERE status IN ({VERDICTS}))"
UNSETTLED = f"""
    SELECT
        (SELECT count(*) FROM closings) - (SELECT count(*) FROM shard_rows)
        + (SELECT count(*) FROM (
            SELECT mailbox, window_idx FROM closings EXCEPT SELECT mailbox, unnest(windows) FROM requests
        ))
        + (SELECT count(*) FROM ({UNDECIDED}))
"""
"""Closings without a shard or a run, and runs without a verdict."""


class Watch:
    """One home, watched through its owner's socket and its folders."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def stored(self, mailbox: str, key: str) -> bool:
        """Whether a message is durable; also false while nobody answers."""
        return bool(self._ask("SELECT count(*) FROM message_rows WHERE mailbox = ? AND message_key = ?", [mailbox, key]))

    def messages(self) -> int:
        """How many are stored; 0 while nobody answers."""
        return int(self._ask("SELECT count(*) FROM message_rows", []) or 0)

    def settled(self) -> bool:
        """Whether every closing has its run and every run its verdict."""
        return bool(self._ask(UNSETTLED, []) == 0)

    def run_under_way(self) -> str | None:
        """A run that was asked for and is not trained yet; None when there is none, or nobody answers."""
        run_id = self._ask(UNDECIDED, [])
        return run_id if run_id is not None and not self.trained(run_id) else None

    def trained(self, run_id: str) -> bool:
        """Whether a run has left its result."""
        return (self._home.run(run_id) / "result.json").exists()

    def trained_since(self, moment_ns: int) -> bool:
        """Whether training has written anything after a moment of the wall clock."""
        roots = (self._home.runs, self._home.adapters, self._home.root / "bases")
        for path in (path for root in roots for path in root.rglob("*")):
            try:
                if path.name not in CLAIMED and path.is_file() and path.stat().st_mtime_ns > moment_ns:
                    return True
            except FileNotFoundError:  # written under a temporary name
                continue
        return False

    def _ask(self, sql: str, values: list[object]) -> Any:
        try:
            store = RemoteStore.reach(self._home, None, None, writes=False)
            if store is None:
                return None
            try:
                return store.scalar(sql, values)
            finally:
                store.close()
        except MailtideError:  # killed while it answered
            return None
