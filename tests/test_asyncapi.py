"""The AsyncAPI document: current, whole, and true of the records that are written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from pipeline.domain import Arrival, DeadLetter, Parsed, Tick, TickKind
from pipeline.events import AdapterPromoted, Event, RunFinished, RunRequested, Topic, WindowClosed
from pipeline.parsing.mail import parse_mail
from streams.asyncapi import document
from streams.bus.deadletters import Origin, dead_record
from streams.bus.envelope import Record, record_of
from streams.mailpath.messages import answer_record, handed_record
from streams.mailpath.notices import AnnouncedFeed, Announcement, Progress, announcement_record, progress_record
from tests.conftest import REPOSITORY
from tests.support.program import run

AT = datetime(2026, 1, 2, 3, 4, 5)
ARRIVAL = Arrival("main", "inbox", 7, "812", AT, "ab" * 32, b"Subject: x\n\nHello\n")
MARK = Tick("main", "clock", 3, TickKind.AGE, AT)
UNREADABLE = DeadLetter("main", "inbox", 8, "900", AT, "parse", "too large", 1, b"\x00")
ANNOUNCEMENT = Announcement(mailbox="m", feeds=(AnnouncedFeed(name="f", kind="mbox", source="x"),))
PAYLOADS = (
    WindowClosed(mailbox="m", window_idx=1, reason="age", n_messages=2, n_chunks=1, shard_path="s", shard_sha256="0"),
    RunRequested(mailbox="m", run_id="r", windows=(1, 2)),
    RunFinished(mailbox="m", run_id="r", ok=False, detail="broke"),
    AdapterPromoted(mailbox="m", adapter_id="a", path="p", sha256="0", journal_ordinal=9),
)
EVENTS = [(payload.TOPIC, record_of(Event.of(payload, at=AT))) for payload in PAYLOADS]
WRITTEN: list[tuple[Topic, Record]] = [
    *EVENTS,
    (Topic.MESSAGE_RECEIVED, handed_record(ARRIVAL)),
    (Topic.MESSAGE_RECEIVED, handed_record(MARK)),
    (Topic.MESSAGE_RECEIVED, handed_record(UNREADABLE)),
    (Topic.MESSAGE_RECEIVED, announcement_record(ANNOUNCEMENT, AT)),
    (Topic.MESSAGE_PARSED, answer_record(Parsed("main", "inbox", 7, "812", AT, parse_mail(ARRIVAL.raw)))),
    (Topic.MESSAGE_PARSED, answer_record(MARK)),
    (Topic.MESSAGE_PARSED, answer_record(UNREADABLE)),
    (Topic.PROGRESS, progress_record(Progress(mailbox="m", feed="f", last_number=7), AT)),
]  # fmt: skip


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    text = (REPOSITORY / "docs" / "asyncapi.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def test_the_document_is_what_the_models_say(published: dict[str, Any], tmp_path: Any) -> None:
    assert published == document(), "run `mailtide topics asyncapi > docs/asyncapi.yaml`"
    printed = run(tmp_path / "home", "topics", "asyncapi")
    assert printed.stdout == (REPOSITORY / "docs" / "asyncapi.yaml").read_text(encoding="utf-8")
    assert json.loads(run(tmp_path / "home", "topics", "asyncapi", "--json").stdout) == published


def test_every_topic_has_its_channel(published: dict[str, Any]) -> None:
    addresses = [channel["address"] for channel in published["channels"].values()]
    assert sorted(addresses) == sorted(name for topic in Topic for name in (topic.value, f"{topic}.dlq"))


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for child in node.values():
            yield from nodes(child)
    elif isinstance(node, list):
        for child in node:
            yield from nodes(child)


def found(published: dict[str, Any], reference: str) -> Any:
    assert reference.startswith("#/")
    node: Any = published
    for part in reference[2:].split("/"):
        node = node[part.replace("~1", "/").replace("~0", "~")]
    return node


def test_every_reference_leads_somewhere(published: dict[str, Any]) -> None:
    references = [node["$ref"] for node in nodes(published) if isinstance(node.get("$ref"), str)]
    assert len(references) > 40
    for reference in references:
        assert found(published, reference) is not None


def test_it_has_the_form_that_the_specification_asks_for(published: dict[str, Any]) -> None:
    """AsyncAPI 3.0.0, section "Schema": required fields, what may stand where, and references where only those may."""
    assert published["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= published["info"].keys()
    assert published.keys() <= {
        "asyncapi", "id", "info", "servers", "defaultContentType", "channels", "operations", "components",
    }  # fmt: skip
    for server in published["servers"].values():
        assert {"host", "protocol"} <= server.keys()
    for channel in published["channels"].values():
        assert channel.keys() <= {"address", "title", "messages", "bindings"}
        assert all(message.keys() == {"$ref"} for message in channel["messages"].values())
    for operation in published["operations"].values():
        assert operation["action"] in ("send", "receive")
        assert operation["channel"].keys() == {"$ref"}
        assert operation["channel"]["$ref"].startswith("#/channels/")
    for message in published["components"]["messages"].values():
        assert message.keys() <= {"name", "title", "contentType", "headers", "payload", "bindings"}
        assert message["headers"]["type"] == "object"
        Draft202012Validator.check_schema(message["headers"])
        Draft202012Validator.check_schema(message["payload"])
    for schema in published["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def check(published: dict[str, Any], topic: str, record: Record) -> str:
    """Validates a record against the message of its type on its topic's channel; the message's name."""
    (channel,) = [channel for channel in published["channels"].values() if channel["address"] == topic]
    offered = [found(published, message["$ref"]) for message in channel["messages"].values()]
    (message,) = [message for message in offered if message["name"] == record.header("ce_type")]
    validate(published, message["headers"], {name: value.decode() for name, value in record.headers})
    if message["contentType"] == "application/json" and record.value:
        validate(published, message["payload"], json.loads(record.value))
    return str(message["name"])


def validate(published: dict[str, Any], schema: dict[str, Any], instance: Any) -> None:
    Draft202012Validator({"components": published["components"], **schema}).validate(instance)


def test_what_is_written_is_as_the_document_says(published: dict[str, Any]) -> None:
    names = {check(published, topic, record) for topic, record in WRITTEN}
    told = {message["name"] for message in published["components"]["messages"].values() if "name" in message}
    assert told - names == {"mail.partition.owned.v1"}  # written by an assigner that starts, and by nothing else


def test_what_the_document_does_not_allow_is_found(published: dict[str, Any]) -> None:
    topic, record = EVENTS[0]
    for wrong in (
        Record(record.key, b'{"mailbox": "m"}', record.headers),
        Record(record.key, record.value, tuple(header for header in record.headers if header[0] != "ce_id")),
    ):
        with pytest.raises(ValidationError):
            check(published, topic, wrong)


def test_dead_letters_are_as_the_document_says(published: dict[str, Any]) -> None:
    dead = dead_record(EVENTS[0][1], "c", 5, "RunError: no", Origin(1_700_000_000_000, "t", 1, 2))
    headers = {name: value.decode() for name, value in dead.headers}
    validate(published, published["components"]["messages"]["dead_letter"]["headers"], headers)
