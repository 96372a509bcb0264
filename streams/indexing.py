"""Making indexes anew and saying how they stand, over the mailboxes of a home, and where the server of some is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.config.index_settings import WeaviateSettings
from pipeline.config.settings import Settings
from pipeline.errors import MailtideError, NothingToDo
from pipeline.home import Home
from pipeline.installing import install_command
from pipeline.store import Store
from registry.indexes import (
    VECTORS,
    WORDS,
    Standing,
    add_vectors,
    build_words,
    documents,
    lag,
    standings,
    stored_vectors,
    writing,
)
from registry.named import mailboxes_of
from registry.remote_indexes import Remote, held_up_to, levelled, masked_texts
from retrain.search.embedder import Embedder, load_embedder
from retrain.search.vectors import Vectors
from retrain.search.weaviate import Address, connected
from streams.mailpath.ownership import store_name
from streams.owning.stores import OpenStore
from streams.secrets import secret_of

SERVER = "weaviate"


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """An index made anew: its documents, how many texts were embedded for it, why there are no vectors beside it, and how
    many mails were sent to a server."""

    mailbox: str
    index: str
    documents: int
    embedded: int = 0
    missing: str = ""
    sent: int = 0


def standings_of(store: Store, home: Home, settings: Settings, mailboxes: Sequence[str]) -> list[Standing]:
    """How every index stands; without vectors where the settings want none and there are none."""
    found = [standing for mailbox in mailboxes for standing in standings(store, home, mailbox)]
    return [one for one in found if one.index != VECTORS or one.n_bytes or settings.index.engine != "bm25"]


def rebuild(
    home: Home,
    settings: Settings,
    open_store: OpenStore,
    mailbox: str | None,
    *,
    fresh: bool = False,
    embedder: Embedder | None = None,
    told: Callable[[str, int, int], None] = lambda mailbox, read, most: None,
) -> list[Rebuilt]:
    """Makes words anew and, unless the engine is ``bm25``, vectors; mail of which a vector is kept is embedded again only
    when ``fresh``. With the engine ``auto`` a missing model is a remark; with the others an error.

    ``told`` hears mailbox, texts embedded, and texts at most. The store is open only while it is read.
    """
    with open_store() as store:
        names = mailboxes_of(store, mailbox)
        if not names:
            raise NothingToDo("there is no mailbox yet", hint="bring mail in with `mailtide import PATH`")
        rebuilt = [Rebuilt(name, WORDS, len(build_words(store, home, name))) for name in names]
    if settings.index.engine == "bm25":
        return rebuilt
    if embedder is None:
        try:
            embedder = load_embedder(settings.index.model)
        except MailtideError as error:
            if settings.index.engine != "auto":
                raise
            missing = f"{error.message}; {install_command('search')}"
            return [Rebuilt(one.mailbox, one.index, one.documents, missing=missing) for one in rebuilt]
    remote = remote_of(home, settings.index.weaviate) if settings.index.engine == SERVER else None
    for name in names:
        rebuilt.append(_vectors(home, open_store, name, embedder, fresh, told))
        if remote is not None:
            rebuilt.append(_on_server(home, open_store, name, embedder, remote))
    return rebuilt


def _on_server(home: Home, open_store: OpenStore, mailbox: str, embedder: Embedder, remote: Remote) -> Rebuilt:
    vectors = stored_vectors(home, mailbox, embedder)

    def texts(after: int) -> dict[str, str]:
        with open_store() as store:
            return masked_texts(store, mailbox, after)

    with connected(remote.address, embedder) as server:
        level = levelled(server, remote, mailbox, vectors, texts)
    return Rebuilt(mailbox, SERVER, len(vectors.keys), sent=level.put)


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


def server_standing(home: Home, settings: Settings, mailbox: str, open_store: OpenStore) -> Standing:
    """How a mailbox's index on the server stands, beside the vectors in the home: also damaged when it is not what was put
    there. Raises ``MailtideError`` when the server cannot be asked."""
    remote = remote_of(home, settings.index.weaviate)
    embedder = load_embedder(settings.index.model)
    vectors = stored_vectors(home, mailbox, embedder)
    with connected(remote.address, embedder) as server:
        held = server.index(remote.store, mailbox).held()
    with open_store() as store:
        behind = lag(store, mailbox, held.newest)
    damaged = held != held_up_to(vectors, held.newest)
    state = "damaged" if damaged else "behind" if behind else "current"
    return Standing(mailbox, SERVER, state, held.documents, behind, embedder.name, 0)


def _vectors(
    home: Home,
    open_store: OpenStore,
    mailbox: str,
    embedder: Embedder,
    fresh: bool,
    told: Callable[[str, int, int], None],
) -> Rebuilt:
    with writing(home, mailbox) as allowed:
        if not allowed:
            raise MailtideError(f"another process is indexing {mailbox}", hint="wait for it, or look with `index status`")
        with open_store() as store:
            mails = list(documents(store, mailbox))
        done = add_vectors(
            home,
            mailbox,
            mails,
            embedder,
            Vectors.none(embedder),
            known=None if fresh else stored_vectors(home, mailbox, embedder),
            told=lambda read: told(mailbox, read, len(mails)),
        )
    return Rebuilt(mailbox, VECTORS, len(done.vectors.keys), done.read)
