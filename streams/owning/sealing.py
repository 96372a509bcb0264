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
from pipeline.store.tables import Packed, table_of
from pipeline.versions import CHUNK_FORMAT

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.chunking.shards import ShardDigests
    from pipeline.copies.signatures import BlockBuilder
    from streams.owning.copies import NearCopies

AT_ONCE = 64


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
    masked: Counter[str] = Counter()
    block = BlockBuilder(idx)
    planted = canary_chunks(mailbox, idx, settings.privacy.canaries, partial(store.people.of, CANARY), ruler)
    chunks = chain(_chunks(store, settings, ruler, mailbox, idx), planted)
    digests = write_shard(folder, _noted(chunks, masked, block))
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
    rows = _rows(folder, digests)
    store.append([*rows, *counts, *excluded, shard, *store.outbox_rows([Event.of(payload, at=closing.closed_at)])])
    return shard


def _noted(chunks: Iterable[Chunk], masked: Counter[str], block: BlockBuilder) -> Iterator[Chunk]:
    """The same chunks; what is masked in their new text is added to ``masked``, and what near copies are found by to
    ``block``."""
    source = iter(chunks)
    while batch := list(islice(source, AT_ONCE)):
        for chunk in batch:
            masked.update(count_masked(chunk.text[chunk.new_from :]))
        block.add(batch)
        yield from batch


def _chunks(store: Store, settings: Settings, ruler: Ruler, mailbox: str, window_idx: int) -> Iterator[Chunk]:
    mask = masker(settings.privacy)
    for earlier, new in store.iter_threads(mailbox, window_idx, settings.chunk.overlap):
        yield from build_chunks(earlier, new, settings=settings.chunk, ruler=ruler, mask=mask)


def _rows(folder: Path, digests: ShardDigests) -> list[Packed]:
    """What the store keeps of each chunk, read back from the shard: a first window may hold a hundred thousand of them."""
    from pipeline.arrow import pa
    from pipeline.chunking.shards import read_meta

    columns = [name for name in table_of(ChunkRow).columns if name != "format"]
    chunks = read_meta(folder, digests.chunks_sha256, columns=columns)
    return [Packed(ChunkRow, chunks.append_column("format", pa.repeat(CHUNK_FORMAT, len(chunks))))] if len(chunks) else []
