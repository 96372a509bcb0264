"""What every group of settings is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Group(BaseModel):
    """A group of settings: unknown names are mistakes, values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)
