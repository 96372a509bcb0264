"""The AsyncAPI 3.0 document of everything that travels over a broker, made from the models that read and write it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, TypeAdapter

from pipeline.config.bus_settings import BusSettings
from pipeline.domain import ParsedMail
from pipeline.events import PAYLOADS, Event, Topic
from streams.bus.deadletters import ATTEMPTS, CONSUMER, ORIGIN, PUBLISHED, REASON, REPLAY
from streams.bus.envelope import JSON, SPECVERSION
from streams.bus.topics import DEAD_LETTERS, topic_specs
from streams.mailpath.messages import DeadPlace, MarkPlace, ParsedPlace, RawPlace
from streams.mailpath.notices import Announcement, Progress
from streams.mailpath.ownership import Claim
from streams.mailpath.records import DATAREF, MAIL, Kind

SCHEMAS = "#/components/schemas/"
BINDING = "0.5.0"
TITLES: dict[Topic, str] = {
    Topic.MESSAGE_RECEIVED: "Mail as feeds hand it on",
    Topic.MESSAGE_PARSED: "Mail as parsers answer it, for the one that assigns it",
    Topic.PROGRESS: "How far each feed is taken, and which home owns which partition",
    Topic.WINDOW_CLOSED: "A training window is closed and its shard written",
    Topic.RUN_REQUESTED: "A run is claimed, and its request written",
    Topic.RUN_FINISHED: "A run has trained, or failed for good",
    Topic.ADAPTER_PROMOTED: "An adapter is a mailbox's champion from now on",
}


@dataclass(frozen=True, slots=True)
class Message:
    """A kind of record. ``place`` are its own headers (``ce_`` and the field's name), ``data`` is None for bytes."""

    name: str
    key: str
    data: Any = None
    place: type[BaseModel] | None = None
    content: str = JSON


RECEIVED = Message(Kind.RECEIVED, "sha256 of the mail", place=RawPlace, content=MAIL)
PARSED = Message(Kind.PARSED, "mailbox", ParsedMail, ParsedPlace)
UNREADABLE = Message(Kind.UNREADABLE, "mailbox, or the feed where it was handed on", place=DeadPlace, content=MAIL)
MARKED = Message(Kind.MARKED, "mailbox, or the feed where it was handed on", place=MarkPlace)
ANNOUNCED = Message(Kind.ANNOUNCED, "mailbox", Announcement)
PROGRESS = Message(Kind.PROGRESS, "mailbox/feed", Progress)
OWNED = Message(Kind.OWNED, "#owner or #start, and the store", Claim)
ON_MAIL_TOPICS: dict[Topic, tuple[Message, ...]] = {
    Topic.MESSAGE_RECEIVED: (RECEIVED, UNREADABLE, MARKED, ANNOUNCED),
    Topic.MESSAGE_PARSED: (PARSED, UNREADABLE, MARKED, ANNOUNCED),
    Topic.PROGRESS: (PROGRESS, OWNED),
}


def document() -> dict[str, Any]:
    """The document, as values that YAML and JSON hold alike."""
    on_topic = ON_MAIL_TOPICS | {topic: (Message(topic, "mailbox", model),) for topic, model in PAYLOADS.items()}
    messages = {message.name: message for listed in on_topic.values() for message in listed}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "mailtide on Kafka",
            "version": "1.0.0",
            "description": (
                "Records are CloudEvents 1.0 in Kafka's binary mode. Topics are named with `bus.prefix` before what stands "
                "here. Delivery is at least once, in order per key; an event that comes again has the same id."
            ),
        },
        "defaultContentType": JSON,
        "servers": {"broker": {"host": BusSettings().brokers, "protocol": "kafka", "description": "bus.brokers"}},
        "channels": {
            **{topic.name.lower(): _channel(topic, [message.name for message in on_topic[topic]]) for topic in Topic},
            **{f"{topic.name.lower()}_dead": _channel(topic, ["dead_letter", "replay"], DEAD_LETTERS) for topic in Topic},
        },
        "operations": {
            f"{action}_{channel}": {"action": action, "channel": {"$ref": f"#/channels/{channel}"}}
            for topic in Topic
            for channel in (topic.name.lower(), f"{topic.name.lower()}_dead")
            for action in ("send", "receive")
        },
        "components": {
            "messages": {
                **{_component(name): _message(message) for name, message in messages.items()},
                "dead_letter": _aside("The record that a consumer refused, byte for byte", REASON, ATTEMPTS, CONSUMER),
                "replay": _aside("The same record once more, for one consumer, which settles the dead letter", REPLAY),
            },
            "schemas": _schemas(messages),
        },
    }


def _component(name: str) -> str:
    return name.replace(".", "_")


def _channel(topic: Topic, names: list[str], suffix: str = "") -> dict[str, Any]:
    cleanup = next(spec.cleanup for spec in topic_specs(BusSettings()) if spec.name == topic + suffix)
    return {
        "address": topic + suffix,
        "title": f"Dead letters of {topic}" if suffix else TITLES[topic],
        "messages": {_component(name): {"$ref": f"#/components/messages/{_component(name)}"} for name in names},
        "bindings": {"kafka": {"topicConfiguration": {"cleanup.policy": [cleanup]}, "bindingVersion": BINDING}},
    }


def _message(message: Message) -> dict[str, Any]:
    if message.data is None:
        payload: dict[str, Any] = {"type": "string", "format": "binary"}
    else:
        payload = {"$ref": SCHEMAS + message.data.__name__}
    return {
        "name": str(message.name),
        "contentType": message.content,
        "headers": _headers(message),
        "payload": payload,
        "bindings": {"kafka": {"key": {"type": "string", "description": message.key}, "bindingVersion": BINDING}},
    }


def _headers(message: Message) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "ce_specversion": {"type": "string", "const": SPECVERSION},
        "ce_id": {"type": "string", "description": "the same whenever the same thing happened"},
        "ce_source": {"type": "string", "const": Event.model_fields["source"].default},
        "ce_type": {"type": "string", "const": str(message.name)},
        "ce_time": {"type": "string", "format": "date-time", "description": "UTC"},
        "content-type": {"type": "string", "const": message.content},
    }
    required = list(properties)
    if message.place is not None:
        schema = message.place.model_json_schema()
        for name, field in schema["properties"].items():
            properties.setdefault(f"ce_{name}", _as_text(field, schema.get("$defs", {})))
        required += [f"ce_{name}" for name in schema["required"] if f"ce_{name}" not in required]
        properties[DATAREF] = {"type": "string", "description": "where data above bus.claim_check lie"}
    return {"type": "object", "properties": properties, "required": required}


def _as_text(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a field as a header holds it: as text."""
    if "$ref" in field:
        field = definitions[field["$ref"].rpartition("/")[2]]
    if field.get("type") == "integer":
        return {"type": "string", "pattern": "^[0-9]+$"}
    return {key: value for key, value in field.items() if key in ("type", "enum", "format")}


def _aside(title: str, *headers: str) -> dict[str, Any]:
    properties = {
        **{name: {"type": "string"} for name in headers},
        ORIGIN: {"type": "string", "description": "topic/partition/offset where it was first"},
        PUBLISHED: {"type": "string", "pattern": "^[0-9]+$", "description": "when, in milliseconds since 1970"},
    }
    return {
        "title": title,
        "headers": {"type": "object", "properties": properties, "required": list(properties)},
        "payload": {},
    }


def _schemas(messages: Mapping[str, Message]) -> dict[str, Any]:
    schemas: dict[str, Any] = {}
    for message in messages.values():
        if message.data is not None:
            schema = TypeAdapter(message.data).json_schema(ref_template=SCHEMAS + "{model}")
            schemas |= schema.pop("$defs", {})
            schemas[message.data.__name__] = schema
    return dict(sorted(schemas.items()))
