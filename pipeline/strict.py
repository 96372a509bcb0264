"""The base of every value that comes from a file, a message or settings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A field that is not known is a mistake, and what was read does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)
