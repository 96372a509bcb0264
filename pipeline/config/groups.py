"""What every group of settings is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.strict import Strict

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Group(Strict):
    """A group of settings: unknown names are mistakes, values never change after reading."""
