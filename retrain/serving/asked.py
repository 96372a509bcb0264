"""What is asked of a served model, and what comes back piece by piece. Nothing here needs torch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from pipeline.errors import MailtideError


class Finish(StrEnum):
    """Why an answer ended: the model or a stop string ended it, or it is as long as was asked for. The others are no
    answers: ``stopped`` by the server's end, ``late`` after its time, ``failed`` in the model."""

    STOP = "stop"
    LENGTH = "length"
    STOPPED = "stopped"
    LATE = "late"
    FAILED = "failed"

    @property
    def whole(self) -> bool:
        """Whether this is the end of an answer."""
        return self in (Finish.STOP, Finish.LENGTH)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. ``temperature`` 0 takes the likeliest; ``top_p`` keeps the likeliest tokens that together have
    that share of the probability; the same ``seed`` draws the same, whatever else is in the batch (None: drawn anew)."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that may be shown now, perhaps none; ``tokens`` counts all that the answer has by then, an end mark included."""

    text: str
    tokens: int
    finish: Finish | None = None

    def followed_by(self, piece: Piece) -> Piece:
        """Both as one."""
        return Piece(self.text + piece.text, piece.tokens, piece.finish)


Deliver = Callable[[Sequence[tuple["Job", Piece]]], None]
"""Takes pieces of several jobs; called in the engine's thread, and must not wait."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One answer to write: with an adapter (None: the bare base), from a prompt's tokens, until ``deadline`` (in seconds of
    ``time.monotonic``) or until it is ``cancelled``. What is ``streamed`` comes in pieces, else in one at the end. One
    ``at_once`` stands in no line and needs no room: for trying an adapter out while many wait."""

    adapter_id: str | None
    prompt: tuple[int, ...]
    sampling: Sampling
    deadline: float
    streamed: bool = True
    at_once: bool = False
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def most_tokens(self) -> int:
        """Tokens of the prompt and of the longest answer."""
        return len(self.prompt) + self.sampling.max_tokens


class PromptTooLong(MailtideError):
    """A prompt, with the answer asked for, that the model's context does not hold."""

    def __init__(self, prompt: int, answer: int, context: int) -> None:
        self.prompt, self.answer, self.context = prompt, answer, context
        if prompt >= context:
            said = f"the prompt has {prompt:,} tokens, and the model reads {context:,} with the answer"
        else:
            said = f"the prompt has {prompt:,} tokens and the answer up to {answer:,}, and the model reads {context:,}"
        super().__init__(said, hint="shorten the prompt, or ask for fewer tokens")


class QueueFull(MailtideError):
    """As many requests wait as may."""


class EngineStopped(MailtideError):
    """The engine takes no more work."""
