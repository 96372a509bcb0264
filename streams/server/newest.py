"""The newest rows of a view, as the lists of the training API answer with them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel

from pipeline.store import Store

MOST = 1_000
Limit = Annotated[int, Query(ge=1, le=MOST, description="how many at most, the newest")]


def newest(store: Store, view: str, form: type[BaseModel], mailbox: str, order: str, limit: int) -> list[dict[str, Any]]:
    """At most ``limit`` rows of a mailbox, first those that come first by ``order``, told with these last. The columns are
    the fields of ``form``."""
    columns = tuple(form.model_fields)
    rows = store.query(
        f"SELECT {', '.join(columns)} FROM {view} WHERE mailbox = ? ORDER BY {order} LIMIT ?", [mailbox, limit]
    )
    return [dict(zip(columns, row, strict=True)) for row in reversed(rows)]
