"""Whether this machine may train now: on a laptop, by setting, only on mains power and while nobody needs it."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config.bus_settings import DaemonSettings


@dataclass(frozen=True, slots=True)
class Machine:
    """What matters: on mains power (True also where there is no battery), and the load of the last minute per core."""

    on_mains: bool
    load: float


def why_wait(settings: DaemonSettings, machine: Machine) -> str:
    """Why training has to wait, in words; "" when it may begin."""
    if settings.wait_for_mains and not machine.on_mains:
        return "waiting for mains power"
    if settings.idle_below is not None and machine.load >= settings.idle_below:
        return f"waiting for an idle machine (load {machine.load:.2f} per core, to be below {settings.idle_below:g})"
    return ""


def this_machine() -> Machine:
    """The machine as it is now."""
    import psutil

    battery = psutil.sensors_battery()
    return Machine(
        on_mains=battery is None or bool(battery.power_plugged), load=psutil.getloadavg()[0] / (psutil.cpu_count() or 1)
    )
