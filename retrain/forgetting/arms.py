"""The arms of the study: which rehearsal a window's training gets, how much of it, and instead of what."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pipeline.config.settings import ReplaySettings
from pipeline.errors import UsageError

Placement = Literal["top", "place", "late", "full"]

ORDERS = ("none", "uniform", "stratified", "sender", "window", "forgetting", "mixed", "silent", "full")
"""How rehearsal is chosen: nothing; in the product's ``uniform`` or ``stratified`` way; a chunk of every sender in turn,
whatever was rehearsed before; as much of every past window; by how much each past window was forgotten; ``mixed``: so too,
senders and threads taking turns within a window; first those senders who do not write in the new window. ``full`` is no
rehearsal but a training from the base on everything."""

ARM = re.compile(r"(?P<order>[a-z]+)(?:@(?P<ratio>\d+(?:\.\d+)?)%)?(?P<place>/in-place|/late)?\Z")


SUFFIXES: dict[Placement, str] = {"place": "/in-place", "late": "/late"}


@dataclass(frozen=True, slots=True)
class Arm:
    """``share`` is the rehearsal's part of all tokens. ``top``: beside all new mail, which is trained as often as without
    rehearsal. ``place``: instead of as much new mail. ``late``: as ``top``, but only in the second half of the steps."""

    order: str
    share: float = 0.0
    placement: Placement = "top"

    @property
    def name(self) -> str:
        """As it is given on the command line: ``uniform@20%``, ``uniform@20%/in-place``, ``none``, ``full``."""
        if self.order in ("none", "full"):
            return self.order
        return f"{self.order}@{100 * self.share:g}%" + SUFFIXES.get(self.placement, "")

    @property
    def folder(self) -> str:
        """Its name as a folder's."""
        return self.name.replace("%", "").replace("@", "-").replace("/", "-")

    def replay(self, given: ReplaySettings) -> ReplaySettings:
        """``given`` with this arm's strategy and quota. Caps are lifted: a study's pool is small."""
        strategy: Literal["stratified", "uniform", "none"] = "uniform"
        if self.order in ("none", "full"):
            strategy = "none"
        elif self.order == "stratified":
            strategy = "stratified"
        ratio = self.share / (1 - self.share)
        return given.model_copy(update={"strategy": strategy, "ratio": ratio, "max_share": self.share})


def parse_arm(text: str) -> Arm:
    """Reads an arm's name; raises ``UsageError``."""
    found = ARM.match(text.strip())
    order = found["order"] if found else ""
    if not found or order not in ORDERS:
        raise UsageError(
            f"{text!r} is no arm", hint=f"an arm is {', '.join(ORDERS)}, as in uniform@20% or uniform@20%/in-place"
        )
    if order in ("none", "full"):
        if found["ratio"] or found["place"]:
            raise UsageError(f"{text!r}: {order} rehearses nothing", hint=f"write {order} alone")
        return Arm(order, 0.0, "full" if order == "full" else "top")
    share = float(found["ratio"] or 20) / 100
    if not 0 < share < 1:
        raise UsageError(f"{text!r} rehearses {100 * share:g} % of all tokens", hint="name a share above 0 and below 100")
    placements = {suffix: placement for placement, suffix in SUFFIXES.items()}
    return Arm(order, share, placements.get(found["place"] or "", "top"))


ARMS = tuple(
    parse_arm(text)
    for text in (
        "none",
        "uniform@20%",
        "stratified@20%",
        "window@20%",
        "forgetting@20%",
        "silent@20%",
        "uniform@5%",
        "uniform@33%",
        "uniform@20%/in-place",
        "full",
    )
)
