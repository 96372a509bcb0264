"""Events between ingest, training and registry: CloudEvents 1.0 with versioned models and deterministic ids."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from pipeline.strict import Strict


class Topic(StrEnum):
    """Topics; a breaking change of a payload is a new topic. Those that mail itself travels on have no payload here: what
    their records hold is told by ``streams.mailpath``."""

    MESSAGE_RECEIVED = "mail.message.received.v1"
    MESSAGE_PARSED = "mail.message.parsed.v1"
    PROGRESS = "mail.progress.v1"
    WINDOW_CLOSED = "mail.window.closed.v1"
    RUN_REQUESTED = "retrain.run.requested.v1"
    RUN_FINISHED = "retrain.run.finished.v1"
    ADAPTER_PROMOTED = "registry.adapter.promoted.v1"


class Payload(Strict):
    """Data of an event. ``TOPIC`` says where it goes; ``event_id`` is the same whenever the same thing happened."""

    TOPIC: ClassVar[Topic]
    mailbox: str

    @property
    def event_id(self) -> str:
        raise TypeError(f"{type(self).__name__} has no event id")


class WindowClosed(Payload):
    TOPIC = Topic.WINDOW_CLOSED
    window_idx: int
    reason: str
    n_messages: int
    n_chunks: int
    shard_path: str = Field(description="relative to the home")
    shard_sha256: str

    @property
    def event_id(self) -> str:
        return f"window.closed/{self.mailbox}/{self.window_idx}"


class RunRequested(Payload):
    TOPIC = Topic.RUN_REQUESTED
    run_id: str
    windows: tuple[int, ...]

    @property
    def event_id(self) -> str:
        return f"run.requested/{self.mailbox}/{self.run_id}"


class RunFinished(Payload):
    TOPIC = Topic.RUN_FINISHED
    run_id: str
    ok: bool
    detail: str = ""

    @property
    def event_id(self) -> str:
        return f"run.finished/{self.mailbox}/{self.run_id}"


class AdapterPromoted(Payload):
    """``journal_ordinal`` makes a second promotion of the same adapter (a rollback) an event of its own."""

    TOPIC = Topic.ADAPTER_PROMOTED
    adapter_id: str
    path: str = Field(description="relative to the home")
    sha256: str
    journal_ordinal: int

    @property
    def event_id(self) -> str:
        return f"adapter.promoted/{self.mailbox}/{self.journal_ordinal}"


PAYLOADS: dict[Topic, type[Payload]] = {
    model.TOPIC: model for model in (WindowClosed, RunRequested, RunFinished, AdapterPromoted)
}


class Event(Strict):
    """A CloudEvents 1.0 envelope; ``key`` orders events (the mailbox)."""

    id: str
    source: str = "mailtide"
    type: Topic
    time: datetime
    key: str
    data: str = Field(description="JSON of the topic's payload")

    @classmethod
    def of(cls, payload: Payload, *, at: datetime) -> Event:
        return cls(id=payload.event_id, type=payload.TOPIC, time=at, key=payload.mailbox, data=payload.model_dump_json())

    def payload(self) -> Payload:
        """The typed data; raises ``ValidationError`` when it does not fit the topic's model."""
        return PAYLOADS[self.type].model_validate_json(self.data)
