"""Tokens become text as they come: never half a character, and never a part of what may turn out to be a stop string."""

from __future__ import annotations

from typing import Any

from tokenizers.decoders import DecodeStream

from retrain.serving.asked import Finish, Piece, Sampling


class Spelling:
    """The text of one answer. ``backend`` is a ``tokenizers.Tokenizer``; ``ends`` are the tokens that end an answer."""

    def __init__(self, backend: Any, ends: frozenset[int], sampling: Sampling) -> None:
        self._backend = backend
        self._ends = ends
        self._sampling = sampling
        self._stream = DecodeStream(skip_special_tokens=True)
        self._tokens: list[int] = []
        self._read = ""
        self._shown = 0

    def take(self, token: int) -> Piece:
        """One more token; the piece is the last one where it says why."""
        if token in self._ends:
            return self._end(Finish.STOP, 1)
        self._tokens.append(token)
        self._read += self._stream.step(self._backend, token) or ""
        stopped = self._stop_string()
        if stopped is not None:
            self._read = self._read[:stopped]
            return self._show(len(self._read), Finish.STOP, 0)
        if len(self._tokens) >= self._sampling.max_tokens:
            return self._end(Finish.LENGTH, 0)
        return self._show(len(self._read) - self._held_back(), None, 0)

    def cut(self, finish: Finish) -> Piece:
        """The last piece of an answer that something else than its text ends."""
        return self._show(self._shown, finish, 0)

    def _end(self, finish: Finish, marks: int) -> Piece:
        whole = self._backend.decode(self._tokens, skip_special_tokens=True)
        if whole.startswith(self._read):
            self._read = whole  # with what was waiting for the rest of a character
        return self._show(len(self._read), finish, marks)

    def _show(self, until: int, finish: Finish | None, marks: int) -> Piece:
        text = self._read[self._shown : until]
        self._shown = max(self._shown, until)
        return Piece(text, len(self._tokens) + marks, finish)

    def _stop_string(self) -> int | None:
        """Where the first stop string begins."""
        found = [place for stop in self._sampling.stop if (place := self._read.find(stop, self._shown)) >= 0]
        return min(found, default=None)

    def _held_back(self) -> int:
        """Characters at the end that may be the beginning of a stop string."""
        unshown = len(self._read) - self._shown
        return max(
            (
                length
                for stop in self._sampling.stop
                for length in range(1, min(len(stop), unshown + 1))
                if self._read.endswith(stop[:length])
            ),
            default=0,
        )
