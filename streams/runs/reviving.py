"""Events of a run that were set aside because something stood in its way, and how the run is taken up again."""

from __future__ import annotations

from pipeline.runs.requests import RunRequest
from streams.bus.contract import Bus, Dead


def set_aside(bus: Bus, request: RunRequest) -> list[Dead]:
    """The events of a run that wait for somebody to mend what they were refused for."""
    return [dead for dead in bus.dead() if dead.event.id.endswith(f"/{request.run_id}")]


def revive(bus: Bus, request: RunRequest) -> None:
    """Makes them pending again."""
    for dead in set_aside(bus, request):
        bus.replay(dead.event.id, dead.consumer)
