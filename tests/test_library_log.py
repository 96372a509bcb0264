"""What the Kafka client library logs reaches people as one line per trouble."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from streams.bus.library_log import LASTS_SECONDS, QUIET_SECONDS, OneLine, calm


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def library(clock: Clock) -> Iterator[logging.Logger]:
    logger, handler = logging.getLogger("library.under.test"), OneLine(clock)
    logger.propagate = False
    logger.addHandler(handler)
    yield logger
    logger.removeHandler(handler)


def told(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    ours = [record for record in caplog.records if record.name == "streams.bus.library_log"]
    return [record.getMessage() for record in ours if record.levelno == level]


def flood(library: logging.Logger, clock: Clock, seconds: float) -> None:
    for _ in range(int(seconds * 10)):
        library.error("cannot reach %s\nat all", "a:1")
        library.warning("nor its friends")
        clock.now += 0.1


def test_a_trouble_is_told_once_while_it_lasts(
    library: logging.Logger, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    flood(library, clock, 10 * LASTS_SECONDS)
    (line,) = told(caplog)
    assert line.endswith(": cannot reach a:1 at all")


def test_the_next_trouble_is_told_again(library: logging.Logger, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        flood(library, clock, 2 * LASTS_SECONDS)
        clock.now += QUIET_SECONDS
    assert len(told(caplog)) == 2


def test_what_is_over_at_once_is_not_told(library: logging.Logger, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(5):
        flood(library, clock, LASTS_SECONDS / 2)
        library.info("fine")
        clock.now += QUIET_SECONDS
    assert told(caplog) == []


def test_nothing_is_lost_at_debug(library: logging.Logger, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "streams.bus.library_log"):
        flood(library, clock, 1)
    assert len(told(caplog, logging.DEBUG)) == 20


def test_the_library_is_calmed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    library = logging.getLogger("aiokafka")
    monkeypatch.setattr(library, "handlers", [])
    monkeypatch.setattr(library, "propagate", True)
    calm()
    calm()
    assert (len(library.handlers), library.propagate) == (1, False)
