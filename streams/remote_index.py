"""Where the Weaviate server of the settings is, its key asked for where that is kept."""

from __future__ import annotations

from pipeline.config.index_settings import WeaviateSettings
from pipeline.home import Home
from registry.remote_indexes import Remote
from retrain.search.weaviate import Address
from streams.mailpath.ownership import store_name
from streams.secrets import secret_of


def remote_of(home: Home, settings: WeaviateSettings) -> Remote:
    """The server, and this home's name on it. Raises ``SecretError`` where the key cannot be had."""
    address = Address(
        url=settings.url,
        grpc_port=settings.grpc_port,
        collection=settings.collection,
        key=secret_of(settings.secret) if settings.secret is not None else None,
        seconds=settings.timeout,
    )
    return Remote(address, store_name(home))
