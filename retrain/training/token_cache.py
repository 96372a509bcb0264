"""Examples that were tokenised before, read back instead of made again: the same tokens, whoever made them.

What an example follows from, beside its shard, is told by a digest: the tokenizer as it was loaded, the libraries that
carry it out, the context, and under ``reply`` the template and whose replies are learned. Another answer to any of these
is another file.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.chunking.tokenised import TOKENISED, Tokenised
from pipeline.home import Home
from pipeline.runs.requests import ShardRef
from retrain.training.batches import Example

FORMAT = 1
"""Raised whenever the same text would become another example, or be written down otherwise."""

LIBRARIES = ("tokenizers", "transformers")


def way_of(tokenizer: Any, context: int, **further: object) -> str:
    """Hex sha256 of all that an example follows from but its shard; ``further`` is what an objective adds, in JSON."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()  # as every call leaves them that asks for neither: before and after, the digest is one
    backend.no_padding()
    told = {
        "format": FORMAT,
        "tokenizer": hashlib.sha256(backend.to_str().encode()).hexdigest(),
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "libraries": [importlib.metadata.version(name) for name in LIBRARIES],
        "context": context,
        **further,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


class TokenCache:
    """Examples of a mailbox's shards that were made in one ``way`` (:func:`way_of`)."""

    def __init__(self, home: Home, mailbox: str, way: str, gib: float) -> None:
        self._kept = Tokenised(home, mailbox, round(gib * (1 << 30)))
        self._way = way

    def read(self, shard: ShardRef, wanted: Collection[str]) -> dict[str, Example]:
        """Those of the chunks ``wanted`` that are kept, by id."""
        table = self._kept.read(self._key(shard))
        return {} if table is None else {example.chunk_id: example for example in _examples(table, wanted)}

    def add(self, shard: ShardRef, made: Sequence[Example]) -> None:
        """Keeps examples of chunks of ``shard``."""
        if made:
            self._kept.add(self._key(shard), _rows(made))

    def _key(self, shard: ShardRef) -> str:
        # The digest of a shard's metadata covers that of each of its texts.
        return hashlib.sha256(f"{shard.sha256}:{self._way}".encode()).hexdigest()[:32]


def _rows(made: Sequence[Example]) -> pa.Table:
    columns = [
        [example.chunk_id for example in made],
        [np.asarray(example.ids, np.int32) for example in made],
        [example.label_from for example in made],
        [example.n_bytes for example in made],
        [[place for span in example.unlabelled for place in span] for example in made],
    ]
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, TOKENISED, strict=True)], TOKENISED)


def _examples(table: pa.Table, wanted: Collection[str]) -> list[Example]:
    rows = table.filter(pc.is_in(table["chunk_id"], value_set=pa.array(sorted(wanted), pa.string())))
    names = [name for name in TOKENISED.names if name != "ids"]
    others = zip(*(rows[name].to_pylist() for name in names), strict=True)
    ids = (tuple(each.values.to_numpy().tolist()) for each in rows["ids"])
    return [
        Example(chunk_id, tokens, label_from, n_bytes, tuple(zip(spans[::2], spans[1::2], strict=True)))
        for tokens, (chunk_id, label_from, n_bytes, spans) in zip(ids, others, strict=True)
    ]
