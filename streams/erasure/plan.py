"""What an erasure takes, written down before anything is touched: ids and digests only, so that it may be kept."""

from __future__ import annotations

from datetime import datetime

from pipeline.store.rewriting import Gone
from pipeline.strict import Strict
from streams.erasure.asked import Kind


class Plan(Strict):
    """Ids and digests of everything that goes.

    ``target`` is the id that was asked for, or the keyed hash of an address. ``chunks`` are by window. ``texts`` are
    digests; True for those that quote what goes and are no message's own words. ``quoting`` are messages that lose their
    full text, quotes included, and keep their own words; ``repeating`` are messages of which the own words repeat what
    goes: these are other people's and stay. ``runs`` trained on it, at least up to some checkpoint, and lose what they
    learned; ``written`` are runs that wrote replies after reading it, and lose these; ``reports`` are runs with a report,
    which quotes people. ``withdrawn`` is the run under way that would have read it. ``champion`` answered before,
    ``successor`` answers then (None: the bare base, or mail alone where ``bases`` holds it).
    """

    version: int = 1
    erasure_id: str
    mailbox: str
    kind: Kind
    target: str
    asked_at: datetime
    messages: tuple[str, ...]
    chunks: dict[int, tuple[str, ...]]
    texts: dict[str, bool]
    people: tuple[str, ...]
    raws: tuple[str, ...]
    dead_letters: tuple[str, ...]
    claims: tuple[str, ...]
    feedback: tuple[str, ...]
    quoting: tuple[str, ...]
    repeating: tuple[str, ...]
    runs: tuple[str, ...]
    written: tuple[str, ...]
    reports: tuple[str, ...]
    withdrawn: str | None
    adapters: tuple[str, ...]
    bases: tuple[str, ...]
    champion: str | None
    successor: str | None

    @property
    def chunk_ids(self) -> frozenset[str]:
        return frozenset(chunk_id for ids in self.chunks.values() for chunk_id in ids)

    @property
    def gone(self) -> Gone:
        """What the bodies lose."""
        return Gone(self.texts, frozenset(self.people), frozenset(self.raws))

    @property
    def wants_retrain(self) -> bool:
        """Whether what answered learned from it, so that another has to be made."""
        return self.champion != self.successor or bool(self.bases)
