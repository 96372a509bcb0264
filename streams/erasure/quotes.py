"""Where else the words and names of what is erased stand: in the quotes of other people's mails, or in their own words."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from pipeline.copies.shingles import runs, words_of
from pipeline.domain import StoredMessage
from pipeline.store import Store

RUN = 8
"""So many words in a row are not written twice by chance; a shorter mail is looked for as a whole, from this on:"""
LEAST = 4


@dataclass(frozen=True, slots=True)
class Found:
    """Messages by key: ``copies`` hold nothing but what is erased, quoted; ``quoting`` quote it beside words of their own;
    ``repeating`` repeat it in their own words."""

    copies: tuple[str, ...]
    quoting: tuple[str, ...]
    repeating: tuple[str, ...]


class Traces:
    """What the words and names of erased mails are recognised by."""

    def __init__(self, erased: Collection[StoredMessage], *, names: bool) -> None:
        """``names``: the senders are erased with all their mail, so that their names and addresses count too."""
        self._runs: set[str] = set()
        for message in erased:
            words = words_of(message.own_text or message.text)
            self._runs |= runs(words, RUN) if len(words) >= RUN else {" ".join(words)} if len(words) >= LEAST else set()
        self._lengths = sorted({run.count(" ") + 1 for run in self._runs})
        self._names: set[str] = set()
        if names:
            # A given name alone is everybody's: only a name of two words tells one person.
            full = {message.sender_name.lower() for message in erased if " " in message.sender_name.strip()}
            self._names = full | {message.sender_address.lower() for message in erased if message.sender_address}

    def stand_in(self, text: str) -> bool:
        """Whether a text repeats any of them."""
        lower = text.lower()
        if any(name in lower for name in self._names):
            return True
        words = words_of(lower)
        return any(not self._runs.isdisjoint(runs(words, length)) for length in self._lengths)


def find(store: Store, mailbox: str, keys: Collection[str], *, names: bool) -> Found:
    """Looks through all mail of a mailbox that is not erased. In the threads of what is erased every mail with quotes
    counts as quoting it: what is quoted there may be a line or two, too little to be told by."""
    wanted = set(keys)
    erased = list(store.messages_by_key(mailbox, wanted).values())
    traces, threads = Traces(erased, names=names), {message.thread_id for message in erased}
    copies, quoting, repeating = [], [], []
    for message in _others(store, mailbox, wanted):
        own = message.own_text
        if not own.strip():
            if message.text and traces.stand_in(message.text):
                copies.append(message.message_key)
            continue
        if own != message.text and (message.thread_id in threads or traces.stand_in(message.text)):
            quoting.append(message.message_key)
        if traces.stand_in(own):
            repeating.append(message.message_key)
    return Found(tuple(copies), tuple(quoting), tuple(repeating))


def _others(store: Store, mailbox: str, keys: set[str]) -> Iterator[StoredMessage]:
    return (message for message in store.all_messages(mailbox) if message.message_key not in keys)
