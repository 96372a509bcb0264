"""From chunk ids to what the model sees, by the objective of the run; texts are checked against their digests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.chunking.archive import archived_texts
from pipeline.chunking.shards import read_rows, read_texts
from pipeline.errors import ShardError
from pipeline.home import Home
from pipeline.runs.requests import RunRequest, ShardRef
from retrain.training.batches import Example, Source, encode
from retrain.training.dialogues import Template
from retrain.training.replies import ReplyEncoder, dialogue_of
from retrain.training.token_cache import TokenCache, way_of

Row = dict[str, Any]
Make = Callable[[Sequence[Row], Mapping[str, str]], list[Example]]
"""From rows of :data:`COLUMNS` and their texts by chunk id to examples, in the order of the rows."""

COLUMNS = ("chunk_id", "new_from", "starts", "authors", "tiers", "n_context", "sha256")


@dataclass(frozen=True, slots=True)
class Reader:
    """Makes examples for one model: its tokenizer, and at most ``context`` tokens of each chunk."""

    home: Home
    request: RunRequest
    tokenizer: Any
    context: int

    def examples(self, wanted: Collection[str], archive: Path | None = None) -> dict[str, Example]:
        """Those of the chunks ``wanted``, by id, in the order of the shards; their texts from the training set ``archive``
        where one is given. Raises ``ShardError`` and ``RunError``."""
        ids = set(wanted)
        cache, make = self._ways()
        order: list[str] = []
        found: dict[str, Example] = {}
        lacking: dict[ShardRef, list[Row]] = {}
        texts: dict[str, str] = {}
        for shard in self.request.shards:
            folder = self.home.root / shard.path
            here = read_rows(folder, shard.sha256, ids, columns=("chunk_id",))["chunk_id"].to_pylist()
            if not here:
                continue
            kept = cache.read(shard, here)
            order += here
            found |= kept
            if len(kept) < len(here):
                lacking[shard] = read_rows(folder, shard.sha256, set(here) - set(kept), columns=COLUMNS).to_pylist()
                if archive is None:
                    texts |= read_texts(folder, shard.sha256, [row["chunk_id"] for row in lacking[shard]])
        if archive is not None:
            texts = _archived(archive, {row["chunk_id"]: row["sha256"] for rows in lacking.values() for row in rows})
        for shard, rows in lacking.items():
            made = make(rows, texts)
            cache.add(shard, made)
            found |= {example.chunk_id: example for example in made}
        return {chunk_id: found[chunk_id] for chunk_id in order}

    def _ways(self) -> tuple[TokenCache, Make]:
        """How chunks become examples under the run's objective, and those that became so before."""
        model, context, tokenizer = self.request.settings.model, self.context, self.tokenizer
        gib = self.request.settings.train.token_cache_gib
        if model.objective == "cpt":
            return TokenCache(self.home, self.request.mailbox, way_of(tokenizer, context), gib), self._read
        template = Template.of(tokenizer, builtin=self.request.base.kind == "builtin")
        owner = frozenset(self.request.owner)
        encoder = ReplyEncoder(tokenizer, template, context)
        way = way_of(tokenizer, context, template=template.source, owner=sorted(owner))

        def answer(rows: Sequence[Row], texts: Mapping[str, str]) -> list[Example]:
            return encoder.encode([dialogue_of(row, texts[row["chunk_id"]], owner) for row in rows])

        return TokenCache(self.home, self.request.mailbox, way, gib), answer

    def _read(self, rows: Sequence[Row], texts: Mapping[str, str]) -> list[Example]:
        sources = [Source(row["chunk_id"], texts[row["chunk_id"]], row["new_from"]) for row in rows]
        return encode(self.tokenizer, sources, self.context)


def _archived(archive: Path, digests: Mapping[str, str]) -> dict[str, str]:
    """Texts of a training set, each checked against the digest that its shard recorded."""
    texts = archived_texts(archive, set(digests))
    for chunk_id, digest in digests.items():
        if hashlib.sha256(texts[chunk_id].encode()).hexdigest() != digest:
            raise ShardError(f"{archive}: chunk {chunk_id} is not the one of its shard", hint="remove it and run again")
    return texts
