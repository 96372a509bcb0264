"""Shared fixtures: where the real mail lies, and small homes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.home import Home

if TYPE_CHECKING:
    from tests.support.kafka import Broker

REPOSITORY = Path(__file__).resolve().parent.parent

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # as in a shell's background, where programs under test would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def data_folder() -> Path | None:
    """The folder of real mail: ``MAILTIDE_DATA``, else ``shared/data`` beside the checkout; None where absent."""
    named = os.environ.get("MAILTIDE_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def real_mail() -> Path:
    folder = data_folder()
    if folder is None:
        pytest.skip("no folder of real mail: set MAILTIDE_DATA to one")
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home that is not made yet."""
    return Home(tmp_path / "home")


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A real Kafka broker that all tests share: each keeps to topics of its own, by ``bus.prefix``."""
    from tests.support.kafka import running

    with running(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: handed out a file at a time, they would else be what everything waits for."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
