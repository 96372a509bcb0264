"""A chat that is to be answered from the mailbox: its last question, and the mails that fit, quoted as what they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from registry.answer import Answer, Citation, chat_messages
from registry.quoting import fitted
from streams.server.context import ServerContext
from streams.server.deck import Held
from streams.server.errors import ApiError
from streams.server.wire import CitedMail, Message


@dataclass(frozen=True, slots=True)
class Quoted:
    """The messages for the model, the mails that are quoted in them, and what is missing of those found ("": nothing)."""

    messages: list[dict[str, str]]
    citations: list[CitedMail]
    notice: str


def quoted(context: ServerContext, held: Held, messages: Sequence[Message], k: int, answer_tokens: int) -> Quoted:
    """Searches for the last message, which must be the user's, and quotes the best mails as far as the model's context
    holds them beside an answer of ``answer_tokens``. Rules for reading quotations come first, then the conversation so far.
    """
    question = messages[-1].text if messages[-1].role == "user" else ""
    if not question.strip():
        raise ApiError(400, "retrieval needs a question: the last message, of the user", param="messages")

    def fits(some: Answer) -> bool:
        return len(held.model.encode(_told(some, messages))) + answer_tokens <= held.model.context

    given = fitted(context.search.find(question, k), fits)
    mails = [_cited(number, mail) for number, mail in enumerate(given.answer.citations, 1)]
    return Quoted(_told(given.answer, messages), mails, given.notice)


def _told(found: Answer, messages: Sequence[Message]) -> list[dict[str, str]]:
    rules, question = chat_messages(found)
    own_rules = [message.text for message in messages[:-1] if message.role in ("system", "developer")]
    turns = [message.plain() for message in messages[:-1] if message.role in ("user", "assistant")]
    system = {"role": "system", "content": "\n\n".join([*own_rules, rules["content"]])}
    return [system, *turns, question]


def _cited(number: int, mail: Citation) -> CitedMail:
    return CitedMail(
        number=number,
        message_id=mail.message_id,
        thread_id=mail.thread_id,
        sender=mail.sender,
        date=mail.date.isoformat(),
        subject=mail.subject,
        passage=mail.passage,
        score=mail.score,
    )
