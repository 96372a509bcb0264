"""Versions of what decides a chunk's bytes; they freeze with a store, so that what it holds can be told apart."""

from __future__ import annotations

from pipeline.chunks import CHUNK_FORMAT
from pipeline.mail import PARSE_VERSION
from pipeline.scrub import SCRUB_VERSION
from pipeline.store import Versions

VERSIONS = Versions(parse=PARSE_VERSION, scrub=SCRUB_VERSION, chunk=CHUNK_FORMAT)
