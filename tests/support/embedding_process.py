"""The daemon's embedding process with the embedder of the tests, which needs no model: `python -m` runs it."""

from __future__ import annotations

import sys

from pipeline.errors import MailtideError
from registry.embedding import main
from tests.support.embedding import TrigramEmbedder


def load(model: str) -> TrigramEmbedder:
    """An embedder called as its model is; there is none called missing."""
    if model == "missing":
        raise MailtideError("there is no such model", hint="name another")
    return TrigramEmbedder(model)


if __name__ == "__main__":
    sys.exit(main(load=load))
