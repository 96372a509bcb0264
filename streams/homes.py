"""Makes a home: folder, settings, key and store, or nothing at all."""

from __future__ import annotations

from pipeline.arrival.people import PeopleKey
from pipeline.config.configuration import write_home
from pipeline.config.settings import Settings
from pipeline.errors import UsageError
from pipeline.home import Home, private_dir
from pipeline.store import Store
from pipeline.versions import VERSIONS


def make_home(home: Home, settings: Settings, key: PeopleKey) -> None:
    """Raises ``UsageError`` when there is a home already: what froze there cannot be chosen again."""
    if home.store.exists():
        raise UsageError(f"{home.root} is a mailtide home already", hint="name another folder with --home")
    private_dir(home.root)
    write_home(home, settings)
    Store.create(home, settings, key, VERSIONS).close()
