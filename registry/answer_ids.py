"""Ids of answers that say by themselves who answered, and that only this home could have given: nothing has to be stored
for each answer, and feedback on one that was never given, or with another adapter put in, is known for what it is."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time

from pipeline.arrival.people import PeopleKey

CODE_BYTES = 10


class AnswerIds:
    """The ids of one mailbox's answers: ``PREFIX-MOMENT-MODEL-CODE``, where the model is the adapter, or the base, that
    wrote the answer, and the code over all of it is keyed with the home's secret."""

    def __init__(self, key: PeopleKey, mailbox: str) -> None:
        self._key = key
        self._mailbox = mailbox

    def issue(self, prefix: str, model: str) -> str:
        """A new id; ``prefix`` says what kind of answer it is and holds no hyphen."""
        told = f"{prefix}-{int(time.time()):08x}{secrets.token_hex(8)}-{model}"
        return f"{told}-{self._code(told)}"

    def model_of(self, answer_id: str) -> str | None:
        """Who wrote the answer; None for an id that was not given for this mailbox."""
        told, _, code = answer_id.rpartition("-")
        if not answer_id.isascii() or not hmac.compare_digest(code, self._code(told)):
            return None
        return told.split("-", 2)[2]

    def _code(self, told: str) -> str:
        words = f"answer id\0{self._mailbox}\0{told}".encode()
        return hashlib.blake2b(words, key=self._key.secret, digest_size=CODE_BYTES).hexdigest()
