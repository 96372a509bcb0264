"""How an answer comes about: what finds the mails, and who writes the prose, if anybody: a real base model does, the
built-in one only when asked to."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config.settings import Settings
from pipeline.home import Home
from pipeline.runs.requests import AdapterRef, BaseRef
from pipeline.store import Store
from registry.answer import Answer, chat_messages
from registry.decide import journal
from registry.finding import Search, chosen_engine
from registry.named import adapter_of, reference
from registry.quoting import fitted
from retrain.search.embedder import load_embedder
from streams.indexing import remote_of
from streams.runs.bases import base_to_ask
from streams.runs.runner import require_training

MAX_NEW_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Written:
    """What a model wrote (None: it was given no mail, and not asked) from the first ``read`` of the mails found; ``notice``
    says what it was not given, and is empty where it had all."""

    text: str | None
    read: int
    notice: str


@dataclass(frozen=True, slots=True)
class Writer:
    """A model ready to write from the mails found; ``by`` names it for people."""

    home: Home
    settings: Settings
    base: BaseRef
    adapter: AdapterRef | None
    found: Answer

    @property
    def by(self) -> str:
        return self.adapter.adapter_id if self.adapter else f"the bare base {self.base.base_id}"

    def write(self) -> Written:
        """Loads the model and generates; the store should be closed by now, as this may take a while."""
        require_training()
        from retrain.models.generate import Writer as Pen

        pen = Pen(self.home, self.base, self.adapter, self.settings.model)
        tokens = pen.answer_tokens(MAX_NEW_TOKENS)
        given = fitted(self.found, lambda some: pen.fits(chat_messages(some), tokens))
        read = len(given.answer.citations)
        return Written(pen.write(chat_messages(given.answer), tokens) if read else None, read, given.notice)


def search_of(home: Home, settings: Settings, mailbox: str) -> Search:
    """The search of the settings; a model is loaded only where the engine needs one, which takes seconds: the store should
    be closed meanwhile."""
    engine = chosen_engine(settings.index, home, mailbox)
    if engine == "bm25":
        return Search(engine)
    remote = remote_of(home, settings.index.weaviate) if engine == "weaviate" else None
    return Search(engine, load_embedder(settings.index.model), remote)


def write_answer(
    store: Store, home: Home, settings: Settings, mailbox: str, found: Answer, adapter_id: str | None, *, generate: bool
) -> Writer | None:
    """The writer of an answer, or None where the best passage is the answer. Raises ``UsageError`` for an adapter that is
    not this mailbox's, and ``NothingToDo`` when the built-in model was asked for before its first run."""
    if adapter_id is None:
        adapter_id = journal(store).champion(mailbox)
    adapter = reference(home, adapter_of(store, mailbox, adapter_id)) if adapter_id else None
    if settings.model.base == "builtin" and not generate:
        return None
    base = base_to_ask(store, home, settings, mailbox, adapter, "leave out --generate")
    return Writer(home, settings, base, adapter, found)
