"""Real replies as questions to a model: how likely is what was answered, given nothing, given mail found, given any mail?

A reply is asked about with its subject, author and date alone, which are known before its first word. Searching with its
words, as the figures of retrieval do, would let the search peek at what the model has to foretell. Every mail given had
arrived before the reply. Four things are given: nothing; the ``k`` mails that a search for the subject finds; ``k`` random
earlier ones, which tells knowledge from mere company; and the mail it answers, the best that a search could find.

The reply is never cut: one that takes more than half of the context is not asked about. What is cut is the mail given, each
at its end to its share of the room. The best stands last, next to the reply.

Where a run learns replies, the replies asked about are its owner's, and all stands in the chat template in which they are
learned: subject and mails given in the user's turn, the words of the reply in the answer.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.domain import Split
from pipeline.runs.replyfiles import Given
from retrain.search.engines import Engine
from retrain.search.gold import PARENT, Asked, Mail, queries_of
from retrain.training.batches import AS_WRITTEN, Example
from retrain.training.dialogues import Template


@dataclass(frozen=True, slots=True)
class Trial:
    """One reply given one thing: ``mails`` are the keys read before it, ``example`` what the model sees, by its digest."""

    reply: Mail
    given: Given
    mails: tuple[str, ...]
    example: Example

    @property
    def prompt(self) -> tuple[int, ...]:
        """What stands before the reply's first word."""
        return self.example.ids[: self.example.label_from]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The replies of a split that are asked about, each with the mail that it answers, lowest hash first. ``too_long`` of
    those looked at were passed over."""

    replies: tuple[tuple[Mail, Mail], ...]
    too_long: int


def choose_replies(
    mails: Sequence[Mail],
    split: Split,
    most: int,
    fits: Callable[[Mail], bool],
    owner: Collection[str] | None = None,
) -> Chosen:
    """At most ``most`` replies by hash, so that as mail arrives the highest hash let in falls, and what is left of a sample
    is a part of it. Who counts as a reply: see :func:`retrain.search.gold.queries_of`; with ``owner`` (keyed addresses)
    only what the owner answered to somebody else."""
    by_key = {mail.key: mail for mail in mails}
    asked = sorted(queries_of(mails, split, asked=Asked.SUBJECT), key=lambda query: _rank(query.key))
    chosen: list[tuple[Mail, Mail]] = []
    too_long = 0
    for query in asked:
        if len(chosen) == most:
            break
        reply = by_key[query.key]
        parent = by_key[next(key for key, grade in query.grades.items() if grade == PARENT)]
        if owner is not None and (reply.author not in owner or parent.author in owner):
            continue
        if fits(reply):
            chosen.append((reply, parent))
        else:
            too_long += 1
    return Chosen(tuple(chosen), too_long)


def given_mails(
    reply: Mail, parent: Mail, mails: Sequence[Mail], index: Engine, k: int
) -> Mapping[Given, tuple[Mail, ...]]:
    """What is read before the reply, by what is given, the best last. ``mails`` are in order of arrival, and ``index``
    holds them."""
    by_key = {mail.key: mail for mail in mails}
    earlier = [mail for mail in mails if mail.ordinal < reply.ordinal]
    found = [by_key[key] for key, _ in index.search(reply.subject, k, before=reply.ordinal)]
    source = random.Random(f"given:{reply.key}")
    drawn = [earlier[place] for place in source.sample(range(len(earlier)), min(k, len(earlier)))]
    return {
        Given.NOTHING: (),
        Given.RETRIEVED: tuple(reversed(found)),
        Given.RANDOM: tuple(drawn),
        Given.PARENT: (parent,),
    }


class Asking:
    """Puts replies into tokens. ``most`` bounds the tokens of mail given, however large the context is; ``reserve`` are
    kept for a reply to be written where the real one is shorter. With ``template`` the reply is an answer in it, without
    one it goes on the text of the mails."""

    def __init__(self, tokenizer: Any, context: int, most: int, reserve: int, *, template: Template | None = None) -> None:
        self._tokenizer = tokenizer
        self._opening: tuple[int, ...]
        if template is None:
            self._opening = () if tokenizer.bos_token_id is None else (int(tokenizer.bos_token_id),)
            self._answering: tuple[int, ...] | None = None
        else:
            opening, answering, _ = template.pieces(2)
            self._opening, self._answering = opening.rest, answering.rest
        self._context = context
        self._most = most
        self._reserve = min(reserve, context // 2)

    def fits(self, reply: Mail) -> bool:
        """Whether the reply leaves at least half of the context to what is read before it."""
        return 0 < len(self._tokens(reply.words)) <= self._context // 2

    def put(self, reply: Mail, given: Given, mails: Sequence[Mail]) -> Trial:
        """The reply after ``mails``, which are cut to share the room that it leaves."""
        subject, words = self._tokens(f"Subject: {reply.subject}\n"), self._tokens(reply.words)
        lead = self._tokens(reply.lead) if self._answering is None else self._answering
        free = self._context - max(len(words), self._reserve)
        room = min(self._most, free - len(self._opening) - len(subject) - len(lead))
        share = max(0, room) // max(1, len(mails))
        read = [token for mail in mails for token in self._tokens(f"{mail.lead}{mail.words}\n")[:share]]
        before = (*(*self._opening, *subject, *read)[: max(0, free - len(lead))], *lead)[:free]
        ids = (*before, *words)
        digest = hashlib.sha256(f"{len(before)}:{','.join(map(str, ids))}".encode()).hexdigest()
        example = Example(digest, ids, max(1, len(before)), len(reply.words.encode()))
        return Trial(reply, given, tuple(mail.key for mail in mails), example)

    def _tokens(self, text: str) -> list[int]:
        return list(self._tokenizer(text, **AS_WRITTEN)["input_ids"])


def _rank(key: str) -> bytes:
    return hashlib.sha256(f"reply:{key}".encode()).digest()
