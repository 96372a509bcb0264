"""The systemd units: systemd reads them without complaint, and what they rely on is so."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from pipeline.config.configuration import load
from streams.cli.commands import cli
from tests.conftest import REPOSITORY
from tests.support.services import require

UNITS = ("mailtide.service", "mailtide-retrain.service", "mailtide-retrain.timer")
SERVICES = tuple(name for name in UNITS if name.endswith(".service"))
HARDENED = {
    "NoNewPrivileges": "true",
    "ProtectSystem": "strict",
    "PrivateTmp": "true",
    "UMask": "0077",
    "StateDirectoryMode": "0700",
    "CapabilityBoundingSet": "",
    "TimeoutStopSec": "15",
}


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((REPOSITORY / "configs" / name).read_text(encoding="utf-8"))
    return parser


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    require("systemd-analyze", shutil.which("systemd-analyze") is not None, "apt-get install systemd")
    program = tmp_path / "mailtide"
    program.symlink_to(sys.executable)
    for name in UNITS:
        text = (REPOSITORY / "configs" / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace("/usr/local/bin/mailtide", str(program)))
    verified = verify(tmp_path, *UNITS)
    assert (verified.returncode, complaints(verified)) == (0, [])
    (tmp_path / UNITS[0]).write_text((tmp_path / UNITS[0]).read_text().replace("ProtectSystem=", "ProtectSistem="))
    assert any("ProtectSistem" in line for line in complaints(verify(tmp_path, UNITS[0])))


def verify(folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(folder / name) for name in names)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def complaints(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What was said of our units; a machine may have faults in units of its own."""
    return [line for line in done.stderr.splitlines() if "mailtide" in line]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_hardened_and_keeps_its_home_private(name: str) -> None:
    service = unit(name)["Service"]
    assert {key: service[key] for key in HARDENED} == HARDENED
    assert service["User"] == service["Group"] == service["StateDirectory"] == "mailtide"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_starts_a_command_of_the_program_with_settings_that_exist(name: str) -> None:
    service = unit(name)["Service"]
    _, command, *options = shlex.split(service["ExecStart"])
    found = cli.get_command(click.Context(cli), command)
    assert found is not None
    found.make_context(command, options)
    variables = dict(word.split("=", 1) for word in service["Environment"].split())
    assert variables["MAILTIDE_HOME"] == "%S/mailtide"
    load(None, environment=variables)


def test_the_daemon_is_restarted_when_it_fails_and_only_then() -> None:
    service = unit("mailtide.service")["Service"]
    assert service["Restart"] == "on-failure"
    assert service["Type"] != "notify", "the daemon does not tell systemd when it is ready"


def test_nothing_to_do_is_no_failure() -> None:
    service = unit("mailtide-retrain.service")["Service"]
    assert (service["Type"], service["SuccessExitStatus"]) == ("oneshot", "3")
    assert unit("mailtide-retrain.timer")["Timer"]["OnCalendar"].startswith("Sun ")
