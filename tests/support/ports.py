"""Ports of loopback for servers that tests start, and stop, and start again."""

from __future__ import annotations

import contextlib
import random
import socket

BELOW_EPHEMERAL = range(15_000, 32_000)
"""Outgoing connections take their ports from above these, so that none sits on a server's port while it is down."""
TRIES = 1_000


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, drawn at random so that tests side by side hardly ever draw the same."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        for port in random.SystemRandom().sample(BELOW_EPHEMERAL, TRIES):
            if len(found) == count:
                break
            with contextlib.suppress(OSError):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
    assert len(found) == count, "no free port on 127.0.0.1"
    return found
