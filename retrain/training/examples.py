"""From chunk ids to what the model sees, by the objective of the run; texts are checked against their digests."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.chunking.archive import archived_texts
from pipeline.chunking.shards import read_meta, read_texts
from pipeline.errors import ShardError
from pipeline.home import Home
from pipeline.runs.requests import RunRequest
from retrain.training.batches import Example, Source, encode
from retrain.training.dialogues import Template
from retrain.training.replies import ReplyEncoder, dialogue_of

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
        rows: list[dict[str, Any]] = []
        texts: dict[str, str] = {}
        for shard in self.request.shards:
            folder = self.home.root / shard.path
            meta = read_meta(folder, shard.sha256, columns=("chunk_id",))["chunk_id"].to_pylist()
            if not ids.isdisjoint(meta):
                here = [
                    row for row in read_meta(folder, shard.sha256, columns=COLUMNS).to_pylist() if row["chunk_id"] in ids
                ]
                rows += here
                if archive is None:
                    texts |= read_texts(folder, shard.sha256, [row["chunk_id"] for row in here])
        if archive is not None:
            texts = _archived(archive, {row["chunk_id"]: row["sha256"] for row in rows})
        return {example.chunk_id: example for example in self._encoded(rows, texts)}

    def _encoded(self, rows: list[dict[str, Any]], texts: Mapping[str, str]) -> list[Example]:
        if self.request.settings.model.objective == "cpt":
            sources = [Source(row["chunk_id"], texts[row["chunk_id"]], row["new_from"]) for row in rows]
            return encode(self.tokenizer, sources, self.context)
        template = Template.of(self.tokenizer, builtin=self.request.base.kind == "builtin")
        owner = frozenset(self.request.owner)
        told = [dialogue_of(row, texts[row["chunk_id"]], owner) for row in rows]
        return ReplyEncoder(self.tokenizer, template, self.context).encode(told)


def _archived(archive: Path, digests: Mapping[str, str]) -> dict[str, str]:
    """Texts of a training set, each checked against the digest that its shard recorded."""
    texts = archived_texts(archive, set(digests))
    for chunk_id, digest in digests.items():
        if hashlib.sha256(texts[chunk_id].encode()).hexdigest() != digest:
            raise ShardError(f"{archive}: chunk {chunk_id} is not the one of its shard", hint="remove it and run again")
    return texts
