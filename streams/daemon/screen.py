"""The daemon on a terminal: its lines scroll by above a table of feeds and training that is kept current."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text

from streams.daemon.board import DaemonState
from streams.daemon.running import Daemon
from streams.daemon.wording import training_line

REFRESH_SECONDS = 0.5


@contextmanager
def screen(daemon: Daemon, *, drawn: bool) -> Iterator[logging.Handler | None]:
    """Draws the daemon's state while it runs; yields the handler that puts lines above it, None when nothing is drawn."""
    if not drawn:
        yield None
        return
    console = Console(stderr=True)
    done = threading.Event()
    with Live(picture(daemon.state), console=console, auto_refresh=False, transient=True) as live:

        def refresh() -> None:
            while not done.wait(REFRESH_SECONDS):
                live.update(picture(daemon.state), refresh=True)

        thread = threading.Thread(target=refresh, name="screen", daemon=True)
        thread.start()
        try:
            yield RichHandler(console=console, show_path=False, show_level=False, markup=False, highlighter=None)
        finally:
            done.set()
            thread.join()


def picture(state: DaemonState) -> Group:
    """The state as what is drawn."""
    table = Table(box=None, pad_edge=False)
    for name, justify in (("mailbox", "left"), ("feed", "left"), ("", "left"), ("mails", "right"), ("new", "right")):
        table.add_column(name, justify="right" if justify == "right" else "left", overflow="fold")
    for feed in state.feeds:
        table.add_row(feed.mailbox, Text(feed.source), feed.doing, f"{feed.read:,}", f"{feed.new:,}")
    return Group(table, Text(training_line(state)))
