"""The train chunks that other windows would have held: stored ones where a thread is cut alike, else cut from its words.

The chunks of a thread in a window follow from which of its messages are new there, as all earlier ones are before them.
So most threads, which lie in one window under any policy, cost nothing here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.chunking.chunks import build_chunks
from pipeline.chunking.ruler import load_ruler
from pipeline.config.settings import Settings
from pipeline.domain import Split
from pipeline.privacy.scrub import masker
from pipeline.sampling.manifest import CANDIDATE_SCHEMA
from pipeline.store import Store
from streams.whatif.log import Log
from streams.whatif.windows import Window

PAGE = 1_000
"""Messages whose words are in memory at once; a thread is never divided."""


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """The messages of a thread that a window holds: from the ``first`` up to, and without, the ``end`` of the thread's."""

    thread_id: str
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Cut:
    """What a run needs to know of a chunk."""

    sender: str
    bucket: str
    tier: str
    n_tokens: int


Cuts = dict[Part, tuple[Cut, ...]]


class Threads:
    """Which mails of a log each thread has; those of train threads that are not excluded can be trained on."""

    def __init__(self, log: Log) -> None:
        self.mails: dict[str, list[int]] = defaultdict(list)
        self._place: list[int] = []
        self._log = log
        for position, mail in enumerate(log.mails):
            self._place.append(len(self.mails[mail.thread_id]))
            self.mails[mail.thread_id].append(position)

    def parts(self, window: Window) -> list[Part]:
        """The trainable threads of a window, in the order of their first message there, as its shard would have them."""
        bounds: dict[str, tuple[int, int]] = {}
        for position in range(window.first, window.end):
            mail = self._log.mails[position]
            if mail.split is Split.TRAIN and mail.thread_id not in self._log.excluded:
                place = self._place[position]
                bounds[mail.thread_id] = (bounds.get(mail.thread_id, (place, 0))[0], place + 1)
        return [Part(thread_id, first, end) for thread_id, (first, end) in bounds.items()]

    def held_out(self, window: Window) -> int:
        """Val threads with mail in a window."""
        mails = self._log.mails[window.first : window.end]
        return len({mail.thread_id for mail in mails if mail.split is Split.VAL} - self._log.excluded)

    def stored_part(self, thread_id: str, window_idx: int) -> Part | None:
        """The part of a thread that a stored window holds."""
        held = [place for place, at in enumerate(self.mails[thread_id]) if self._log.mails[at].window_idx == window_idx]
        return Part(thread_id, held[0], held[-1] + 1) if held else None


def stored_cuts(store: Store, log: Log, threads: Threads) -> Cuts:
    """The chunks of the store's own windows."""
    found: dict[Part, list[Cut]] = defaultdict(list)
    rows = store.query(
        "SELECT thread_id, window_idx, sender, bucket, tier, n_tokens FROM chunk_rows "
        "WHERE mailbox = ? AND split = 'train' ORDER BY rowid",
        [log.mailbox],
    )
    for thread_id, window_idx, *cut in rows:
        part = threads.stored_part(thread_id, window_idx)
        if part is not None:
            found[part].append(Cut(*cut))
    return {part: tuple(cuts) for part, cuts in found.items()}


def cut_anew(
    store: Store,
    log: Log,
    threads: Threads,
    settings: Settings,
    parts: Collection[Part],
    on_progress: Callable[[int, int], None],
) -> Cuts:
    """Cuts ``parts`` from the stored words, as the closing of a window would; told are mails read, and mails in all."""
    ruler = load_ruler(settings.chunk.ruler)
    mask = masker(settings.privacy)
    found: Cuts = {}
    done, total = 0, sum(part.end - part.first for part in parts)
    for page in _pages(sorted(parts)):
        keys = {part: _keys(log, threads, part, settings.chunk.overlap) for part in page}
        words = store.messages_by_key(log.mailbox, {key for part_keys in keys.values() for key in part_keys})
        for part in page:
            messages = [words[key] for key in keys[part]]
            n_new = part.end - part.first
            earlier, new = messages[:-n_new], messages[-n_new:]
            chunks = build_chunks(earlier, new, settings=settings.chunk, ruler=ruler, mask=mask)
            found[part] = tuple(Cut(chunk.sender, chunk.bucket.value, chunk.tier.value, chunk.n_tokens) for chunk in chunks)
            done += n_new
        on_progress(done, total)
    return found


def candidates(windows: Iterable[tuple[int, Sequence[Part]]], cuts: Cuts) -> pa.Table:
    """The train chunks of windows, with :data:`pipeline.sampling.manifest.CANDIDATE_SCHEMA`, in the order of their
    shards."""
    rows = [
        (f"{part.thread_id}:w{idx}:{ordinal}", idx, part.thread_id, cut.sender, cut.bucket, cut.tier, cut.n_tokens)
        for idx, parts in windows
        for part in parts
        for ordinal, cut in enumerate(cuts[part])
    ]
    columns = list(zip(*rows, strict=True)) or [()] * len(CANDIDATE_SCHEMA)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, CANDIDATE_SCHEMA, strict=True)],
        schema=CANDIDATE_SCHEMA,
    )


def _keys(log: Log, threads: Threads, part: Part, overlap: int) -> list[str]:
    mails = threads.mails[part.thread_id][max(0, part.first - overlap) : part.end]
    return [log.mails[position].key for position in mails]


def _pages(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """Parts by pages, those of a thread together, so that its words are read once."""
    page: list[Part] = []
    held = 0
    for part in parts:
        if held >= PAGE and part.thread_id != page[-1].thread_id:
            yield page
            page, held = [], 0
        page.append(part)
        held += part.end - part.first
    if page:
        yield page
