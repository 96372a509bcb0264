"""Threads as conversations: mails of others are what is asked, the owner's replies what is answered, in a chat template.

Template and mails are tokenised apart, so which tokens are foretold is known token by token, and a mail that spells a
control token says those characters and controls nothing. Mails stand as in their chunk, each led by author and date; a
reply is its words alone, and after it the mark with which the template ends an answer, so that the model learns to stop.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError

from pipeline.chunking.chunks import MARK
from pipeline.errors import RunError

PLAIN = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}"
    f"{{% if message['role'] == 'user' %}}{MARK} reply{{{{ '\\n' }}}}{{% else %}}{{{{ '\\n' }}}}{MARK}{{{{ '\\n' }}}}"
    "{% endif %}{% endfor %}"
)
"""The template of the built-in model, which knows no roles: a thread as chunks write it, ``⁂ reply`` before the words of
the answer, and a mark alone on its line after them. The mark stands nowhere in a mail."""

SOME_DAY = datetime(2024, 7, 26)
"""What templates that tell the model the date are given: a run must not depend on the day it is made on."""

_HOLE = re.compile("\ue000(\\d+)\ue001")


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens of the template between two contents: ``closing`` ends the answer before it, ``rest`` leads to the next."""

    closing: tuple[int, ...]
    rest: tuple[int, ...]


class Template:
    """A tokenizer's chat template, taken apart."""

    def __init__(self, tokenizer: Any, source: str, closers: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self.source = source
        self._closers = sorted(closers, key=len, reverse=True)
        self.pieces: Callable[[int], list[Piece]] = lru_cache(maxsize=None)(self._pieces)

    @classmethod
    def of(cls, tokenizer: Any, *, builtin: bool) -> Template:
        """The model's own template, or :data:`PLAIN` for the built-in model. Raises ``RunError`` where there is none."""
        if builtin:
            return cls(tokenizer, PLAIN, [MARK])
        if not isinstance(tokenizer.chat_template, str):
            raise RunError(
                "the base model has no chat template, which model.objective reply writes threads with",
                hint="set model.base to a model that was made for conversations, or model.objective to cpt",
            )
        special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        return cls(tokenizer, tokenizer.chat_template, sorted(special | set(tokenizer.all_special_tokens)))

    def _pieces(self, turns: int) -> list[Piece]:
        """What stands before, between and after the contents of so many turns, of user and assistant by turns."""
        messages = [{"role": ("user", "assistant")[place % 2], "content": f"\ue000{place}\ue001"} for place in range(turns)]
        hint = "choose another model.base, or set model.objective to cpt"
        try:
            told = self._tokenizer.apply_chat_template(
                messages,
                chat_template=self.source,
                tokenize=False,
                date_string=SOME_DAY.strftime("%d %b %Y"),
                strftime_now=SOME_DAY.strftime,
            )
        except (TemplateError, ValueError) as error:
            raise RunError(f"the base model's chat template cannot write a thread ({error})", hint=hint) from error
        parts = _HOLE.split(told)
        if parts[1::2] != [str(place) for place in range(turns)]:
            raise RunError("the base model's chat template leaves out mails of a thread, or moves them", hint=hint)
        return [self._piece(text, place) for place, text in enumerate(parts[::2])]

    def _piece(self, text: str, place: int) -> Piece:
        end = self._end(text) if place and place % 2 == 0 else 0
        return Piece(self._tokens(text[:end]), self._tokens(text[end:]))

    def _end(self, text: str) -> int:
        """Where the mark ends that ends an answer; 0 where the template has none."""
        after = text.lstrip()
        for closer in self._closers:
            if after.startswith(closer):
                return len(text) - len(after) + len(closer)
        return 0

    def _tokens(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"]) if text else ()
