"""Versions of what decides a chunk's bytes; they freeze with a store, so that what it holds can be told apart.

They stand here and not beside the code that they are of, as every command that opens a store asks for them.
"""

from __future__ import annotations

from dataclasses import dataclass

PARSE_VERSION = 1
"""Raised when :func:`pipeline.parsing.mail.parse_mail` would read the same bytes otherwise."""

SCRUB_VERSION = 2
"""Raised when :mod:`pipeline.privacy.scrub` would mask the same text otherwise."""

CHUNK_FORMAT = 1
"""Raised when :func:`pipeline.chunking.chunks.build_chunks` would write the same messages otherwise."""


@dataclass(frozen=True, slots=True)
class Versions:
    """Versions of parsing, masking of credentials, and the format of chunks."""

    parse: int
    scrub: int
    chunk: int


VERSIONS = Versions(parse=PARSE_VERSION, scrub=SCRUB_VERSION, chunk=CHUNK_FORMAT)
