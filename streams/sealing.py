"""A closed window becomes a shard: chunks cut, files written, rows and the event committed together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING

from pipeline.chunking.chunks import build_chunks
from pipeline.chunking.ruler import Ruler
from pipeline.config.settings import Settings
from pipeline.domain import Chunk
from pipeline.events import Event, WindowClosed
from pipeline.home import Home
from pipeline.privacy.canaries import CANARY, canary_chunks
from pipeline.privacy.scrub import count_masked, masker
from pipeline.store import Store
from pipeline.store.rows import ChunkRow, ClosingRow, MaskedRow, ShardRow
from pipeline.store.tables import Packed
from pipeline.versions import CHUNK_FORMAT

if TYPE_CHECKING:
    from pipeline.copies.signatures import BlockBuilder
    from streams.copies import NearCopies

PACKED_AT_ONCE = 256


def unsealed(store: Store, mailbox: str) -> list[ClosingRow]:
    """Closings without a shard, in order: new ones, and those that a crash left so."""
    return store.fetch(
        ClosingRow,
        "mailbox = ? AND window_idx NOT IN (SELECT window_idx FROM shard_rows WHERE mailbox = ?)",
        [mailbox, mailbox],
        "window_idx",
    )


def seal(store: Store, home: Home, settings: Settings, ruler: Ruler, closing: ClosingRow, copies: NearCopies) -> ShardRow:
    """Writes the shard of one closing, then commits its rows, what leaves evaluation, and the event that tells of it.

    The files are the same bytes whenever they are written, so a crash between the two is mended by doing both again.
    """
    from pipeline.chunking.shards import write_shard  # 0.05 s of imports that an import without a closing can do without
    from pipeline.copies.signatures import BlockBuilder

    mailbox, idx = closing.mailbox, closing.window_idx
    folder = home.shard(mailbox, idx)
    packed: list[Packed] = []
    masked: Counter[str] = Counter()
    block = BlockBuilder(idx)
    planted = canary_chunks(mailbox, idx, settings.privacy.canaries, partial(store.people.of, CANARY), ruler)
    chunks = chain(_chunks(store, settings, ruler, mailbox, idx), planted)
    digests = write_shard(folder, _noted(chunks, packed, masked, block))
    path = folder.relative_to(home.root).as_posix()
    payload = WindowClosed(
        mailbox=mailbox,
        window_idx=idx,
        reason=closing.reason,
        n_messages=closing.n_messages,
        n_chunks=digests.n_chunks,
        shard_path=path,
        shard_sha256=digests.chunks_sha256,
    )
    shard = ShardRow(mailbox, idx, digests.n_chunks, path, digests.chunks_sha256, digests.text_sha256, payload.event_id)
    counts = [MaskedRow(mailbox, idx, kind, n) for kind, n in sorted(masked.items())]
    excluded = copies.close(closing, block.block(), shard)
    store.append([*packed, *counts, *excluded, shard, *store.outbox_rows([Event.of(payload, at=closing.closed_at)])])
    return shard


def _noted(chunks: Iterable[Chunk], packed: list[Packed], masked: Counter[str], block: BlockBuilder) -> Iterator[Chunk]:
    """The same chunks; their rows are added to ``packed``, as a first window may hold a hundred thousand of them, what is
    masked in their new text to ``masked``, and what near copies are found by to ``block``."""
    source = iter(chunks)
    while batch := list(islice(source, PACKED_AT_ONCE)):
        packed.append(Packed.of([chunk_row(chunk) for chunk in batch]))
        for chunk in batch:
            masked.update(count_masked(chunk.text[chunk.new_from :]))
        block.add(batch)
        yield from batch


def _chunks(store: Store, settings: Settings, ruler: Ruler, mailbox: str, window_idx: int) -> Iterator[Chunk]:
    mask = masker(settings.privacy)
    for earlier, new in store.iter_threads(mailbox, window_idx, settings.chunk.overlap):
        yield from build_chunks(earlier, new, settings=settings.chunk, ruler=ruler, mask=mask)


def chunk_row(chunk: Chunk) -> ChunkRow:
    """The store's row of a chunk: all but its text and offsets."""
    return ChunkRow(
        mailbox=chunk.mailbox,
        chunk_id=chunk.chunk_id,
        thread_id=chunk.thread_id,
        window_idx=chunk.window_idx,
        split=chunk.split.value,
        sender=chunk.sender,
        message_keys=chunk.message_keys,
        n_context=chunk.n_context,
        n_messages=chunk.n_messages,
        n_tokens=chunk.n_tokens,
        bucket=chunk.bucket.value,
        tier=chunk.tier.value,
        sha256=chunk.sha256,
        format=CHUNK_FORMAT,
    )
