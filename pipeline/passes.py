"""How much of a batch goes through the model at once, and what becomes of that when memory runs out."""

from __future__ import annotations

CPU_PASS_TOKENS = 512
"""On a CPU padding costs as much as text, and a pass of this size is as fast per token as a larger one."""


def halved(tokens: int, longest: int) -> int | None:
    """The next smaller pass, in tokens; None when ``tokens`` is no more than the ``longest`` example, which goes through
    whole: from there on smaller passes would save nothing."""
    return max(tokens // 2, longest) if tokens > longest else None
