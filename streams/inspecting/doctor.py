"""What is missing on this machine, with the fix."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import MailtideError, StoreHeldError
from pipeline.home import Home
from pipeline.installing import install_command
from streams.inspecting.requirements import Requirement, declared

PYTHON = (3, 11)
GIB = 2**30
DISK_GIB = 2.0
"""The home of a few thousand mails with its runs and adapters takes some 100 MB; the rest is room to grow."""
MEMORY_GIB = 2.0
"""Training the built-in model peaks below this, torch included."""
PURPOSES = {
    "": "packages",
    "train": "packages to train and to generate answers",
    "serve": "packages to serve",
    "search": "packages to search by vectors",
    "secrets": "packages to mask further secrets",
}
NEEDED = ("", "train")
"""Extras that whoever retrains needs; of the others it is told what is missing, which is no fault."""
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class Check:
    """``ok`` is None where nothing is wrong and nothing needs to be done, only told; ``fix`` is the command, or empty."""

    name: str
    ok: bool | None
    detail: str
    fix: str = ""


def diagnose(home: Home | None) -> list[Check]:
    """Looks at Python, packages, hardware and, unless None, at ``home``; changes nothing and imports nothing heavy."""
    checks = [_python(), *_packages(), _graphics(), _memory()]
    if home is not None:
        checks += [_disk(home.root), *_home(home)]
    return checks


def _python() -> Check:
    here = ".".join(map(str, sys.version_info[:3]))
    wanted = ".".join(map(str, PYTHON))
    fits = sys.version_info[:2] >= PYTHON
    return Check("Python", fits, here, "" if fits else f"install Python {wanted} or later and make the environment anew")


def _packages() -> Iterator[Check]:
    requirements = declared()
    if requirements is None:
        yield Check("mailtide", False, "runs from a folder, not from an installation", "pip install -e '.[train]'")
        return
    for extra, purpose in PURPOSES.items():
        asked = [requirement for requirement in requirements if requirement.extra == extra]
        wrong = [requirement for requirement in asked if not requirement.fits]
        if wrong:
            unfit = extra in NEEDED or any(requirement.installed for requirement in wrong)
            yield Check(purpose, False if unfit else None, ", ".join(map(_wrong, wrong)), install_command(extra))
        else:
            yield Check(purpose, True, f"all {len(asked)} fit" if len(asked) > 1 else "it fits")


def _wrong(requirement: Requirement) -> str:
    found = f"is {requirement.installed}" if requirement.installed else "is missing"
    return f"{requirement.name} {found} (needs {requirement.limits or 'any version'})"


def _graphics() -> Check:
    name = "GPU"
    program = shutil.which("nvidia-smi")
    if program is None:
        if NVIDIA_DRIVER.exists():
            return Check(name, False, "there is a driver, but no nvidia-smi", "install the driver's tools")
        return Check(name, None, "none: training runs on the CPU, which is enough for the built-in model")
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return Check(name, False, f"nvidia-smi fails: {error}", "repair the driver, then run nvidia-smi")
    cards = "; ".join(line.strip() for line in told.splitlines() if line.strip())
    torch = next((one.installed for one in declared() or () if one.name == "torch"), None)
    if torch is not None and "+cpu" in torch:
        return Check(
            name, False, f"{cards}; but torch {torch} is built for the CPU alone", "pip install --force-reinstall torch"
        )
    return Check(name, True, cards)


def _memory() -> Check:
    try:
        import psutil
    except ImportError:  # told with the packages
        return Check("memory", None, "psutil is needed to tell")
    available = psutil.virtual_memory().available / GIB
    enough = available >= MEMORY_GIB
    fix = "" if enough else f"close other programs: training wants {MEMORY_GIB:g} GiB"
    return Check("memory", enough, f"{available:.1f} GiB available", fix)


def _disk(folder: Path) -> Check:
    while not folder.exists():
        folder = folder.parent
    state = os.statvfs(folder)
    free = state.f_bavail * state.f_frsize / GIB
    enough = free >= DISK_GIB
    fix = "" if enough else f"free {DISK_GIB:g} GiB, or name a home on another disk with --home"
    return Check("disk", enough, f"{free:.1f} GiB free at {folder}", fix)


def _home(home: Home) -> Iterator[Check]:
    if not home.store.exists():
        yield Check("home", None, f"none yet at {home.root}", "mailtide init")
        return
    yield Check("home", True, str(home.root))
    yield _privacy(home.root)
    yield _store(home)
    yield from _deployments(home)


def _privacy(root: Path) -> Check:
    """Files of a home are 0600 and its folders 0700: whoever can read one can read the mail."""
    open_paths = [path for path in (root, *root.rglob("*")) if _open_to_others(path)]
    if not open_paths:
        return Check("privacy", True, "only you can read the home")
    told = f"{len(open_paths)} of its files and folders are open to others, {open_paths[0]} for one"
    return Check("privacy", False, told, f"chmod -R go-rwx {shlex.quote(str(root))}")


def _open_to_others(path: Path) -> bool:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:  # a temporary file of a command that is running
        return False
    return not stat.S_ISLNK(mode) and bool(mode & (stat.S_IRWXG | stat.S_IRWXO))


def _deployments(home: Home) -> Iterator[Check]:
    """Deploy targets that something is wrong with; nothing is asked of them. Settings that cannot be read are told of with
    the store."""
    from pipeline.config.configuration import read_home
    from streams.inspecting.standing import deployments

    try:
        found = deployments(home, read_home(home, environment=os.environ))
    except MailtideError:
        return
    wrong = [one for one in found if one.trouble]
    for one in wrong:
        yield Check(f"deploy {one.target}", False, f"{one.mailbox}: {one.trouble}", "mailtide deploy")
    if found and not wrong:
        named = ", ".join(sorted({one.target for one in found}))
        yield Check("deploy targets", True, f"{named}: all serve what they were given")


def _store(home: Home) -> Check:
    """Opens the store as a command would, settings and versions against what froze included."""
    from pipeline.config.configuration import read_home
    from pipeline.store import Store
    from pipeline.versions import VERSIONS

    try:
        with Store.open(home, read_home(home, environment=os.environ), VERSIONS) as store:
            return Check("store", True, f"opens, schema version {store.schema_version}")
    except StoreHeldError as error:
        return Check("store", None, error.message, error.hint)
    except MailtideError as error:
        return Check("store", False, error.message, error.hint)
    except ModuleNotFoundError as error:
        return Check("store", False, f"cannot be opened without {error.name}", install_command(""))
