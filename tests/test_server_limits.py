"""The gatekeeper: room, tokens, pace, size and time, each refused in the one shape of errors, with when to try again."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from pipeline.config.server_settings import ServeSettings
from streams.server.errors import of_ours
from streams.server.feedback import FeedbackAsked
from streams.server.gatekeeping import GRACE_SECONDS, MOST_CALLERS, Gatekeeper
from streams.server.invalid import invalid_request
from streams.server.tokens import Tokens
from streams.server.wire import ChatAsked, CompletionAsked, Wire

TOKENS = Tokens(("good", "better"))
PROMPT = "quokka"
HALF = "tide \ud83c"
Endpoint = Callable[[Request], Awaitable[Any]]


class Clock:
    """A time that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def read_all(request: Request) -> Any:
    return len(await request.body())


def kept(endpoint: Endpoint = read_all, clock: Clock | None = None, tokens: Tokens = TOKENS, **limits: Any) -> Gatekeeper:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await JSONResponse(await endpoint(request))(scope, receive, send)

    return Gatekeeper(app, ServeSettings(**limits), tokens, clock or Clock())


async def asked(
    gatekeeper: Gatekeeper,
    *,
    token: str | None = "good",
    path: str = "/v1/models",
    body: tuple[bytes, ...] = (b"",),
    length: int | None = None,
    caller: str = "127.0.0.1",
) -> tuple[int, Any, dict[str, str]]:
    """Status, JSON and headers of one request, whose body comes in these pieces."""
    headers = [(b"authorization", f"Bearer {token}".encode())] if token is not None else []
    headers += [(b"content-length", str(length).encode())] if length is not None else []
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "client": (caller, 1), "query_string": b""}
    left = list(body)
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(message: Message) -> None:
        sent.append(message)

    await gatekeeper(scope, receive, send)
    told = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], json.loads(b"".join(part.get("body", b"") for part in sent[1:])), told


def ask(gatekeeper: Gatekeeper, **request: Any) -> tuple[int, Any, dict[str, str]]:
    return asyncio.run(asked(gatekeeper, **request))


def test_only_health_needs_no_token() -> None:
    gatekeeper = kept()
    assert ask(gatekeeper)[0] == 200
    for token in (None, "", "goo", "goodx", "better x"):
        status, told, _ = ask(gatekeeper, token=token)
        assert (status, told["error"]["type"]) == (401, "authentication_error")
    assert ask(gatekeeper, token=None, path="/health")[0] == ask(gatekeeper, token=None, path="/ready")[0] == 200
    assert ask(kept(tokens=Tokens(())), token=None)[0] == 200


@pytest.mark.parametrize("length", [None, 4, 40_000_000])
def test_a_body_ends_at_the_limit_whatever_its_length_says(length: int | None) -> None:
    gatekeeper = kept(body_bytes=1_000)
    pieces = (b"x" * 600,) * 4
    status, told, headers = ask(gatekeeper, body=pieces, length=length)
    assert (status, told["error"]["code"], headers["connection"]) == (413, "request_too_large", "close")
    assert "1,000 bytes" in told["error"]["message"]
    assert ask(gatekeeper, body=(b"x" * 1_000,), length=1_000)[:2] == (200, 1_000)


def test_each_token_has_its_own_pace_and_is_told_when_to_come_back() -> None:
    clock = Clock()
    gatekeeper = kept(clock=clock, rate=3)
    assert [ask(gatekeeper)[0] for _ in range(4)] == [200, 200, 200, 429]
    status, told, headers = ask(gatekeeper)
    assert (status, told["error"]["type"], headers["retry-after"]) == (429, "rate_limit_error", "20")
    assert ask(gatekeeper, token="better")[0] == 200
    clock.now += 20
    assert [ask(gatekeeper)[0] for _ in range(2)] == [200, 429]
    clock.now += 1e6
    assert [ask(gatekeeper)[0] for _ in range(4)] == [200, 200, 200, 429]
    assert {ask(kept(rate=0))[0] for _ in range(50)} == {200}


def test_callers_without_a_token_are_told_apart_and_forgotten_in_the_end() -> None:
    gatekeeper = kept(clock=Clock(), rate=1, tokens=Tokens(()))
    callers = [f"192.0.2.{place}" for place in range(MOST_CALLERS)]
    assert {ask(gatekeeper, caller=caller)[0] for caller in callers} == {200}
    assert ask(gatekeeper, caller=callers[0])[0] == 429
    assert ask(gatekeeper, caller="198.51.100.1")[0] == 200
    assert len(gatekeeper._buckets) == MOST_CALLERS


def test_requests_beyond_the_room_are_refused_until_one_ends() -> None:
    async def check() -> None:
        release = asyncio.Event()

        async def wait(_: Request) -> str:
            await release.wait()
            return "done"

        gatekeeper = kept(wait, requests=2)
        running = [asyncio.ensure_future(asked(gatekeeper)) for _ in range(2)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        status, told, headers = await asked(gatekeeper)
        assert (status, told["error"]["code"], headers["retry-after"]) == (503, "overloaded", "1")
        release.set()
        assert [answer[0] for answer in await asyncio.gather(*running)] == [200, 200]
        assert (await asked(gatekeeper))[0] == 200

    asyncio.run(check())


def test_what_takes_too_long_is_told_so_but_for_streams_of_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.server.gatekeeping.GRACE_SECONDS", 0.0)
    assert GRACE_SECONDS > 0

    async def late(_: Request) -> str:
        # Two turns of the loop: a deadline that has passed is noticed in between.
        for _turn in range(3):
            await asyncio.sleep(0.001)
        return "late"

    gatekeeper = kept(late, seconds=1e-9)
    status, told, _ = ask(gatekeeper)
    assert (status, told["error"]["code"]) == (408, "timeout")
    assert ask(gatekeeper, path="/api/runs/1/events")[:2] == (200, "late")


def test_a_failure_is_answered_and_its_words_are_kept_out_of_answer_and_log(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(_: Request) -> Any:
        raise RuntimeError(f"the prompt was: {PROMPT}")

    with caplog.at_level(logging.INFO):
        status, told, _ = ask(kept(fail), path="/v1/" + "long" * 100)
    assert (status, told["error"]["type"]) == (500, "server_error")
    assert PROMPT not in json.dumps(told) + caplog.text
    assert "RuntimeError in the server" in caplog.text
    assert "fail" in caplog.text
    assert "long" * 30 not in caplog.text


def test_errors_of_the_program_have_the_shape_of_all_others() -> None:
    from pipeline.errors import MailtideError, RegistryError, StoreHeldError, UsageError

    found = [
        of_ours(kind("it is so", hint="do this")) for kind in (UsageError, RegistryError, StoreHeldError, MailtideError)
    ]
    assert [error.status_code for error in found] == [400, 409, 503, 503]
    assert [("Retry-After" in (error.headers or {})) for error in found] == [False, False, True, True]
    assert all(error.message == "it is so; do this" for error in found)


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        (CompletionAsked, {"model": "champion", "prompt": HALF}),
        (CompletionAsked, {"model": HALF, "prompt": "x"}),
        (CompletionAsked, {"model": "champion", "prompt": "x", "stop": [HALF]}),
        (ChatAsked, {"model": "champion", "messages": [{"role": "user", "content": HALF}]}),
        (ChatAsked, {"model": "champion", "messages": [{"role": "user", "content": [{"type": "text", "text": HALF}]}]}),
        (FeedbackAsked, {"id": "chatcmpl-1", "correction": HALF}),
    ],
)
def test_half_a_surrogate_pair_is_the_callers_error(kind: type[Wire], asked: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refusal:
        kind.model_validate(asked)
    told = invalid_request(refusal.value.errors())
    assert told.status_code == 400
    assert "half a surrogate pair is no character" in told.message
    whole = json.loads(json.dumps(asked).replace("ud83c", "ud83c\\udf0a"))
    assert kind.model_validate(whole)


@pytest.mark.parametrize(
    "more",
    [
        {"logprobs": None, "top_logprobs": None, "prediction": None, "audio": None, "web_search_options": None},
        {"tools": [], "tool_choice": "none", "functions": [], "function_call": "auto", "parallel_tool_calls": True},
        {"n": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "top_logprobs": 0, "logprobs": False},
        {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "modalities": ["text"], "service_tier": "auto"},
        {"user": "ann", "safety_identifier": "ann", "prompt_cache_key": "k", "metadata": {"a": "b"}, "store": False},
        {"stream": True, "stream_options": {"include_usage": True}, "response_format": {"type": "text"}, "stop": []},
        {"messages": [{"role": "assistant", "content": "x", "tool_calls": [], "refusal": None, "annotations": []}]},
    ],
)
def test_what_asks_for_nothing_is_taken(more: dict[str, Any]) -> None:
    assert ChatAsked.model_validate({"model": "champion", "messages": [{"role": "user", "content": "x"}], **more})


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"presence_penalty": 0.5}, "presence_penalty: is not supported; leave it out"),
        ({"top_logprobs": 2}, "top_logprobs: is not supported; leave it out"),
        ({"top_k": 40}, "top_k: is not supported; leave it out"),
        ({"reasoning_effort": "low"}, "reasoning_effort: this server does not know this parameter"),
        ({"n": 2}, "n: must be at most 1"),
        ({"model": None}, "model: is missing"),
    ],
)
def test_what_asks_for_something_else_is_refused_by_name(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        ChatAsked.model_validate({"model": "champion", "messages": [{"role": "user", "content": "x"}], **more})
    assert invalid_request(refusal.value.errors()).message == said


def problem(kind: str, *loc: str | int, **context: Any) -> dict[str, Any]:
    return {"type": kind, "loc": ("body", *loc), "msg": "Input should be better", "ctx": context, "input": PROMPT}


@pytest.mark.parametrize(
    ("problems", "field", "said"),
    [
        ([problem("missing", "model"), problem("missing", "messages")], "model", "model: is missing (1 more)"),
        ([problem("less_than_equal", "temperature", le=2.0)], "temperature", "temperature: must be at most 2"),
        (
            [problem("string_type", "stop", "constrained-str"), problem("list_type", "stop", "list[constrained-str]")],
            "stop",
            "stop: must be a text or a list",
        ),
        (
            [
                problem("string_type", "messages", 0, "content", "str"),
                problem("literal_error", "messages", 0, "content", "list[TextPart]", 0, "type", expected="'text'"),
            ],
            "messages.0.content.0.type",
            "messages.0.content.0.type: must be 'text'",
        ),
        ([problem("too_long", "tools", max_length=0)], "tools", "tools: is not supported; leave it out"),
        ([problem("json_invalid", 9)], None, "the body is not JSON"),
        ([problem("something_new", "seed")], "seed", "seed: Input should be better"),
        ([], None, "the request is not valid"),
    ],
)
def test_the_first_wrong_field_is_named_with_what_it_should_be(
    problems: list[dict[str, Any]], field: str | None, said: str
) -> None:
    error = invalid_request(problems)
    assert (error.status_code, error.param, error.message) == (400, field, said)
