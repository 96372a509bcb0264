"""Events as records: what goes out comes back, and what is not ours is refused with a reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.events import Event, Topic, WindowClosed
from streams.bus.envelope import Record, RecordRefused, event_of, headers_of, record_of

AT = datetime(2026, 1, 2, 3, 4, 5, 678900)
CLOSED = WindowClosed(
    mailbox="main", window_idx=4, reason="count", n_messages=50, n_chunks=9, shard_path="shards/x", shard_sha256="ab"
)
EVENT = Event.of(CLOSED, at=AT)


def with_header(name: str, value: str | None) -> Record:
    record = record_of(EVENT)
    others = tuple(header for header in record.headers if header[0] != name)
    return replace(record, headers=others if value is None else (*others, (name, value.encode())))


def test_a_record_is_a_cloudevent_in_binary_mode() -> None:
    record = record_of(EVENT)
    assert record.key == b"main"
    assert record.value == CLOSED.model_dump_json().encode()
    assert dict(record.headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"window.closed/main/4",
        "ce_source": b"mailtide",
        "ce_type": b"mail.window.closed.v1",
        "ce_time": b"2026-01-02T03:04:05.678900Z",
        "content-type": b"application/json",
    }


@given(st.text(min_size=1), st.text(), st.datetimes(), st.integers())
def test_what_goes_out_comes_back(mailbox: str, reason: str, at: datetime, window: int) -> None:
    payload = CLOSED.model_copy(update={"mailbox": mailbox, "reason": reason, "window_idx": window})
    event = Event.of(payload, at=at)
    back = event_of(record_of(event), Topic.WINDOW_CLOSED)
    assert back == event
    assert back.payload() == payload


def test_times_of_other_zones_are_taken_as_utc() -> None:
    record = with_header("ce_time", "2026-01-02T05:04:05+02:00")
    assert event_of(record, Topic.WINDOW_CLOSED).time == datetime(2026, 1, 2, 3, 4, 5)


def test_other_headers_do_not_matter() -> None:
    assert event_of(with_header("traceparent", "00-1-2-03"), Topic.WINDOW_CLOSED) == EVENT
    assert event_of(with_header("content-type", "application/json; charset=utf-8"), Topic.WINDOW_CLOSED) == EVENT


REFUSED = {
    "no CloudEvents headers": with_header("ce_specversion", None),
    "of CloudEvents 2.0": with_header("ce_specversion", "2.0"),
    "no header ce_id": with_header("ce_id", None),
    "no header ce_time": with_header("ce_time", ""),
    "newer version, mail.window.closed.v2": with_header("ce_type", "mail.window.closed.v2"),
    "type mail.window.closed.v0, which does not belong": with_header("ce_type", "mail.window.closed.v0"),
    "type order.paid, which does not belong": with_header("ce_type", "order.paid"),
    "data are application/avro": with_header("content-type", "application/avro"),
    "cannot be read: Invalid isoformat string": with_header("ce_time", "yesterday"),
    "cannot be read: 'utf-8' codec": replace(record_of(EVENT), value=b"\xff\xfe"),
    "data: Invalid JSON": replace(record_of(EVENT), value=b"{"),
    "window_idx: Field required": replace(record_of(EVENT), value=b'{"mailbox": "main"}'),
    "surprise: Extra inputs are not permitted": replace(
        record_of(EVENT), value=CLOSED.model_dump_json()[:-1].encode() + b', "surprise": 1}'
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_not_ours_is_refused_with_a_reason(reason: str) -> None:
    with pytest.raises(RecordRefused) as refusal:
        event_of(REFUSED[reason], Topic.WINDOW_CLOSED)
    assert reason in str(refusal.value)


def test_a_refusal_does_not_quote_the_data() -> None:
    secret = "the merger is on Friday"
    record = replace(record_of(EVENT), value=f'{{"mailbox": {{"text": "{secret}"}}}}'.encode())
    with pytest.raises(RecordRefused) as refusal:
        event_of(record, Topic.WINDOW_CLOSED)
    assert secret not in str(refusal.value)
    assert refusal.value.__cause__ is None


def test_a_header_without_a_value_is_an_empty_one() -> None:
    assert headers_of([("a", None), ("b", b"c")]) == (("a", b""), ("b", b"c"))
