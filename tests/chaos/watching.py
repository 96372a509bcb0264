"""What can be seen of an installation from outside, without asking the part that was killed how it feels."""

from __future__ import annotations

from typing import Any

from pipeline.errors import MailtideError
from pipeline.home import Home
from registry.decide import DECIDED
from streams.owning.remote_store import RemoteStore

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
        """Of the runs that are not trained yet, the one asked for first; None without one, or when nobody answers."""
        asked: list[str] = [run_id for (run_id,) in self._rows(f'{UNDECIDED} ORDER BY "at", run_id', [])]
        return next((run_id for run_id in asked if not self.trained(run_id)), None)

    def trained(self, run_id: str) -> bool:
        """Whether a run has left its result."""
        return (self._home.run(run_id) / "result.json").exists()

    def trained_since(self, run_id: str, moment_ns: int) -> bool:
        """Whether a run has its result, or its training has written anything after a moment of the wall clock."""
        roots = (self._home.run(run_id), self._home.root / "bases")
        for path in (path for root in roots for path in root.rglob("*")):
            try:
                if path.name not in CLAIMED and path.is_file() and path.stat().st_mtime_ns > moment_ns:
                    return True
            except FileNotFoundError:  # written under a temporary name
                continue
        return self.trained(run_id)

    def deployed(self) -> bool:
        """Whether each mailbox's champion is where it is served from."""
        champions = self._rows("SELECT mailbox, adapter_id FROM adapters WHERE status = 'champion'", [])
        links = [(self._home.champion_link(mailbox), adapter) for mailbox, adapter in champions]
        return all(link.is_symlink() and link.resolve().name == adapter for link, adapter in links)

    def _ask(self, sql: str, values: list[object]) -> Any:
        rows = self._rows(sql, values)
        return rows[0][0] if rows else None

    def _rows(self, sql: str, values: list[object]) -> list[tuple[Any, ...]]:
        try:
            store = RemoteStore.reach(self._home, None, None, writes=False)
            if store is None:
                return []
            try:
                return store.query(sql, values)
            finally:
                store.close()
        except MailtideError:  # killed while it answered
            return []
