"""Opens a home for a command: its settings, its store, for as long as the command needs it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config.settings import Settings
    from pipeline.home import Home
    from pipeline.store import Store


def settings_of(home: Home, overrides: Sequence[str] = ()) -> Settings:
    """The settings of a home: its file, the environment, then ``--set``."""
    from pipeline.config.configuration import read_home

    return read_home(home, environment=os.environ, overrides=overrides)


@contextmanager
def opened(home: Home, settings: Settings | None = None) -> Iterator[Store]:
    """The store of a home, through the daemon when one runs. With ``settings``, for commands that write, what froze must
    agree with them and with this version, and nobody else writes meanwhile; without, a command may read whatever there
    is."""
    from streams.owning.stores import store_of

    versions = None
    if settings is not None:
        from pipeline.versions import VERSIONS

        versions = VERSIONS
    with store_of(home, settings, versions, writes=settings is not None) as store:
        if settings is not None and settings.notify.targets:
            from pipeline.times import utc_now
            from streams.notices.finding import watch

            watch(store, settings, utc_now())
        yield store


def tell_news(home: Home, settings: Settings) -> None:
    """Sends what a command has made news of to whom the settings name. What does not arrive is told on stderr, sent later,
    and never makes a command fail."""
    if settings.notify.targets:
        import click

        from pipeline.errors import MailtideError
        from streams.notices.outgoing import send_waiting

        try:
            troubles = send_waiting(home, settings)
        except MailtideError as error:
            troubles = [f"notices wait: {error}"]
        for trouble in troubles:
            click.echo(trouble, err=True)
