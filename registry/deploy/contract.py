"""What a deploy target promises. A link, a server in the next room and a stranger's web hook are driven by the same steps:
load beside what serves, check, flip, confirm, and only then let go of the former one (``registry/deploy/converging.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pipeline.events import AdapterPromoted


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a target wrote ``tokens`` tokens once: seconds to the first, and tokens a second after that."""

    first_token_seconds: float
    tokens_per_second: float
    tokens: int


class Target(Protocol):
    """Every step may be repeated, after a crash or because nobody knows whether it was done: the second time is nothing.

    Each raises ``DeployError`` when the target is away, refuses, or is not what it should be; ``OSError`` is as good.
    """

    name: str
    mailbox: str | None
    """The only mailbox that is deployed to it; None: all of them."""
    drain_seconds: float
    """How long a former adapter is kept after the flip, for those who began before it."""

    def load(self, promotion: AdapterPromoted) -> None:
        """Brings the adapter there under a name of its own; who serves stays."""

    def check(self, promotion: AdapterPromoted) -> None:
        """Raises unless the adapter that was loaded answers."""

    def flip(self, promotion: AdapterPromoted) -> None:
        """Makes the adapter the one that serves, in one step."""

    def confirm(self, promotion: AdapterPromoted) -> None:
        """Raises unless callers get the adapter now."""

    def unload(self, mailbox: str, adapter_id: str) -> None:
        """Removes an adapter that does not serve; one that is not there is nothing."""

    def withdraw(self, mailbox: str, adapter_id: str) -> None:
        """Stops serving an adapter that nothing takes the place of, and removes it."""

    def speed(self, promotion: AdapterPromoted) -> Speed | None:
        """Measures an answer; None where the target gives none."""
