"""Notices sent by a command that has made news, where no daemon does it."""

from __future__ import annotations

from pipeline.config.settings import Settings
from pipeline.home import Home
from streams.lease import notice_lease
from streams.notices.outgoing import Outgoing, Told
from streams.stores import OpenStore, opener


def send_waiting(home: Home, settings: Settings, open_store: OpenStore | None = None) -> list[str]:
    """Tells every target what waits for it; returns a line for each that did not take all.

    What is not told now is told by the next command that makes news, or by the daemon. Where another process tells a
    target, a daemon above all, it is left to it. A target is given up for now after two failures: one may be the notice's.
    """
    opening = open_store or opener(home, settings)
    troubles = []
    for name in settings.notify.targets:
        with notice_lease(home, name) as mine:
            if mine:
                outgoing = Outgoing(name, settings, opening, opening)
                failures = 0
                while failures < 2 and (told := outgoing.tell_next()) is not Told.NOTHING:
                    failures += told is Told.FAILED
                if outgoing.trouble is not None:
                    troubles.append(f"notices to {name} wait: {outgoing.trouble}")
    return troubles
