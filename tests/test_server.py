"""The server as tools meet it: a process of its own, asked by the official client, while the registry moves under it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from openai import OpenAI
from schemathesis import checks
from schemathesis.specs.openapi import checks as openapi_checks

from pipeline.errors import UsageError
from pipeline.home import Home
from pipeline.store import Store
from pipeline.times import utc_now
from pipeline.versions import VERSIONS
from registry.byhand import promote, rollback
from streams.owning.held import HeldStore
from streams.owning.owner_socket import OwnerSocket
from streams.server.tokens import Tokens, on_loopback, tokens_of
from tests.support.daemons import until
from tests.support.program import complaint, run
from tests.support.served import ATTACK, MAILBOX, SECRET_FACT, SETTINGS, Served, make_served
from tests.support.servers import SECONDS, Running, server

MARK = "quokka-1193"
"""Stands in every prompt here, and so must not stand in the log."""

CHECKS = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
]

pytestmark = pytest.mark.timeout(900)  # two processes import what a model needs, which takes minutes on a busy machine


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return make_served(tmp_path_factory.mktemp("server") / "home")


@pytest.fixture(scope="module")
def running(served: Served) -> Iterator[Running]:
    with server(served.home) as one:
        yield one


@pytest.fixture(scope="module")
def client(running: Running) -> OpenAI:
    return OpenAI(base_url=running.url, api_key=running.token, timeout=SECONDS, max_retries=0)


def chat(client: OpenAI, model: str, tokens: int = 24, **more: Any) -> Any:
    asked = more.pop("messages", [{"role": "user", "content": f"What is new? {MARK}"}])
    return client.chat.completions.create(model=model, messages=asked, max_tokens=tokens, temperature=0, **more)


def streamed(client: OpenAI, model: str, tokens: int) -> tuple[str, str]:
    """The model that answers, and its text, read piece by piece."""
    stream = chat(client, model, tokens, stream=True)
    names, text = set(), ""
    for event in stream:
        names.add(event.model)
        text += event.choices[0].delta.content or ""
    (name,) = names
    return name, text


def test_before_any_champion_the_bare_base_answers_and_ready_says_so(
    running: Running, client: OpenAI, served: Served
) -> None:
    until(lambda: "candidate" in running.ready()["aliases"], SECONDS)
    told = running.ready()
    assert told["aliases"] == {"champion": None, "candidate": "abread"}
    assert (told["base"], told["mailbox"], told["device"]) == (served.base.base_id, MAILBOX, "cpu")
    answer = chat(client, "champion")
    assert answer.model == served.base.base_id
    assert {model.id for model in client.models.list()} == {"champion", "candidate", served.base.base_id, "abread"}
    assert client.models.retrieve("champion").root == served.base.base_id  # type: ignore[attr-defined]


def test_the_client_gets_whole_and_streamed_answers_with_right_counts(client: OpenAI) -> None:
    whole = chat(client, "candidate", 30)
    assert whole.model == "abread"
    assert (whole.choices[0].finish_reason, whole.usage.completion_tokens) == ("length", 30)
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + 30
    pieces = list(chat(client, "candidate", 30, stream=True, stream_options={"include_usage": True}))
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces[:-1]) == whole.choices[0].message.content
    assert pieces[0].choices[0].delta.role == "assistant"
    assert [piece.choices[0].finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 2) + ["length"]
    assert pieces[-1].choices == []
    assert pieces[-1].usage == whole.usage
    assert len(pieces) >= 3, "the first token waits for no other"
    text = client.completions.create(model="abread", prompt="Bread", max_tokens=12, temperature=0, stop=["never"])
    parts = client.completions.create(model="abread", prompt="Bread", max_tokens=12, temperature=0, stream=True)
    assert "".join(part.choices[0].text for part in parts) == text.choices[0].text


def test_feedback_names_an_answer_by_its_id_and_metrics_count_it(running: Running, client: OpenAI) -> None:
    answer = chat(client, "candidate", 6)
    with chat(client, "candidate", 6, stream=True) as stream:
        (streamed_id,) = {event.id for event in stream}
    for given_id in (answer.id, streamed_id):
        status, taken, _ = running.ask("POST", "/v1/feedback", {"id": given_id, "rating": "down"})
        assert (status, taken["model"], taken["noted"]) == (200, answer.model, True)
    assert running.ask("POST", "/v1/feedback", {"id": "chatcmpl-1", "rating": "up"})[0] == 404
    text = httpx.get(f"http://127.0.0.1:{running.port}/metrics", headers=client.auth_headers, timeout=SECONDS).text
    counted = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(counted["mailtide_server_tokens_total"]) >= 12
    assert float(counted['mailtide_feedback_answers{mailbox="main",rating="down"}']) == 2
    assert float(counted['mailtide_http_first_byte_seconds_count{route="/v1/chat/completions"}']) >= 2


def test_a_seed_and_a_stop_string_are_honoured(client: OpenAI, served: Served) -> None:
    asked: Any = {"model": served.base.base_id, "prompt": "tide", "max_tokens": 20, "temperature": 1.5}
    texts = [client.completions.create(**asked, seed=seed).choices[0].text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    plain = client.completions.create(model="abread", prompt="Bread", max_tokens=30, temperature=0).choices[0].text
    cut = client.completions.create(model="abread", prompt="Bread", max_tokens=30, temperature=0, stop=plain[9:14])
    assert (cut.choices[0].text, cut.choices[0].finish_reason) == (plain[: plain.index(plain[9:14])], "stop")


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"n": 2}, "n"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": ""}, "stop"),
        ({"seed": "x"}, "seed"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"best_guess": MARK}, "best_guess"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": MARK}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": MARK}]}]}, "messages.0.content"),
        ({"max_tokens": 100_000}, "max_tokens"),
        ({"messages": [{"role": "user", "content": f"{MARK} " * 400}]}, "messages"),
        ({"retrieval": True, "messages": [{"role": "assistant", "content": "hello"}]}, "messages"),
    ],
)
def test_what_cannot_be_honoured_is_named_and_not_repeated(running: Running, more: dict[str, Any], named: str) -> None:
    asked = {"model": "candidate", "messages": [{"role": "user", "content": "hello"}], **more}
    status, told, _ = running.ask("POST", "/v1/chat/completions", asked)
    assert status == 400, told
    assert told["error"]["type"] == "invalid_request_error"
    assert str(told["error"]["param"]).startswith(named), told
    assert MARK not in json.dumps(told)
    asked["temperature"], asked["n"] = 0, 1
    if named == "messages" and "retrieval" not in more and asked["messages"]:
        assert "and the model reads 1,024" in told["error"]["message"]


def test_an_unknown_model_a_wrong_token_and_no_token_are_the_clients_own_errors(running: Running, client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no such model here; served are champion"):
        chat(client, "gpt-4o")
    for key in ("wrong", f"{running.token}x", running.token[:-1], ""):
        status, told, headers = running.ask("GET", "/v1/models", token=key)
        assert (status, told["error"]["code"]) == (401, "invalid_api_key")
        assert headers["www-authenticate"] == "Bearer"
    with pytest.raises(openai.AuthenticationError):
        chat(OpenAI(base_url=running.url, api_key="wrong", max_retries=0), "champion")
    assert running.ask("GET", "/health", token="")[:2] == (200, {"status": "ok"})
    assert {name for name, value in running.ask("GET", "/ready", token="")[1].items() if value is not None} == {"ready"}
    assert running.ask("GET", "/openapi.json", token="")[0] == 401


def test_mails_are_cited_and_one_that_gives_orders_is_quoted(client: OpenAI) -> None:
    question = [{"role": "user", "content": f"What is the door code of the boathouse? {MARK}"}]
    answer = chat(client, "candidate", 8, messages=question, extra_body={"retrieval": True, "citations": 2})
    mails = {mail["message_id"]: mail for mail in answer.citations}
    assert set(mails) == {"code@example.org", "attack@example.org"}
    assert SECRET_FACT in mails["code@example.org"]["passage"]
    assert ATTACK.split(": ")[1] in mails["attack@example.org"]["passage"]
    assert [mail["number"] for mail in answer.citations] == [1, 2]
    (first, *rest) = chat(client, "candidate", 8, messages=question, stream=True, extra_body={"retrieval": True})
    assert {mail["message_id"] for mail in first.citations} == set(mails)
    assert all("citations" not in (piece.model_extra or {}) for piece in rest)
    assert (answer.notice, first.notice) == (None, None)
    assert chat(client, "candidate", 4, messages=question).citations is None


def test_mails_that_do_not_fit_are_cut_or_left_out_and_the_answer_says_so(client: OpenAI) -> None:
    def quoted(room: int) -> Any:
        """With so many tokens left for rules, mails and question."""
        asked = [{"role": "user", "content": f"What is the door code of the boathouse? {MARK}"}]
        tokens = SETTINGS.model.builtin.context - room
        return chat(
            client, "candidate", tokens, messages=asked, stream=True, extra_body={"retrieval": True, "citations": 2}
        )

    notices = {}
    for room in range(275, 500, 15):
        with quoted(room) as stream:
            first = next(iter(stream))
        notices[len(first.citations)] = first.notice
    assert set(notices) == {0, 1, 2}
    assert notices[0].startswith("none of the 2 mails found fits")
    assert "left out" in notices[1] or "cut short" in notices[1]
    assert notices[2] is None


def test_a_body_of_100_mb_is_refused_before_it_is_read(running: Running) -> None:
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {running.token}\r\n"
    with socket.create_connection(("127.0.0.1", running.port), SECONDS) as line:
        line.sendall(f"{head}Content-Length: 104857600\r\n\r\n".encode())
        assert b" 413 " in line.recv(65_536).splitlines()[0]
    with socket.create_connection(("127.0.0.1", running.port), SECONDS) as line:
        line.sendall(f"{head}Transfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n".encode())
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        with pytest.raises(OSError):
            for _ in range(1_600):
                line.sendall(chunk)
    assert running.ask("GET", "/health")[0] == 200


def test_no_request_makes_the_server_fail_or_answer_otherwise_than_described(running: Running) -> None:
    schema = schemathesis.openapi.from_dict(running.ask("GET", "/openapi.json")[1])
    schema.config.update(base_url=f"http://127.0.0.1:{running.port}")
    checked = []
    for found in schema.get_all_operations():
        operation = found.ok()  # type: ignore[union-attr]
        if not operation.path.startswith(("/v1/chat", "/v1/completions", "/v1/models", "/api/a", "/health", "/ready")):
            continue

        @given(case=operation.as_strategy())
        @settings(max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        def check(case: Any) -> None:
            if isinstance(case.body, dict) and "messages" in case.body:
                case.body |= {"model": "candidate", "max_tokens": 2, "max_completion_tokens": 2}
            case.call_and_validate(headers={"Authorization": f"Bearer {running.token}"}, timeout=SECONDS, checks=CHECKS)

        check()
        checked.append(operation.path)
    assert len(checked) >= 9, checked


def test_nobody_waits_for_a_slow_reader(running: Running, client: OpenAI) -> None:
    body = json.dumps({"model": "candidate", "prompt": "x", "max_tokens": 900, "temperature": 0, "stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {running.token}\r\n"
    request = f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    lines = [socket.create_connection(("127.0.0.1", running.port), SECONDS) for _ in range(8)]
    try:
        for line in lines:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_024)
            line.sendall(request)
        assert chat(client, "candidate", 8).usage.completion_tokens == 8
    finally:
        for line in lines:
            line.close()
    until(lambda: running.ready()["adapters"]["abread"] == 0, SECONDS)


def test_promotions_and_rollbacks_are_followed_and_what_is_replaced_leaves(
    running: Running, client: OpenAI, served: Served
) -> None:
    with Store.open(served.home, SETTINGS, VERSIONS) as store:
        promote(store, served.home, MAILBOX, "aahoy", "better", "test", utc_now())
    until(lambda: running.ready()["aliases"]["champion"] == "aahoy", SECONDS)
    assert chat(client, "champion").model == "aahoy"
    held = HeldStore(Store.open(served.home, SETTINGS, VERSIONS))
    owner = OwnerSocket(served.home, held, lambda: None)
    try:
        with held.writing() as store:
            promote(store, served.home, MAILBOX, "abread", "better still", "test", utc_now())
        until(lambda: running.ready()["aliases"]["champion"] == "abread", SECONDS)
        with held.writing() as store:
            rollback(store, served.home, MAILBOX, None, "it was not", "test", utc_now())
        until(lambda: running.ready()["aliases"]["champion"] == "aahoy", SECONDS)
        question = [{"role": "user", "content": "door code boathouse"}]
        assert chat(client, "champion", 4, messages=question, extra_body={"retrieval": True}).citations
    finally:
        owner.close()
        held.close()


def test_a_deploy_target_loads_flips_and_unloads(running: Running, served: Served) -> None:
    def ask(path: str, adapter_id: str | None) -> tuple[int, Any]:
        return running.ask("POST", f"/api/{path}", {"adapter_id": adapter_id})[:2]

    assert ask("adapters/load", "abread")[0] == 200
    assert ask("adapters/load", "anobody")[0] == 409
    assert ask("aliases/champion", "anobody")[0] == 409
    assert ask("aliases/nobody", "abread")[0] == 400
    assert ask("aliases/candidate", None)[0] == 200
    assert ask("aliases/champion", "abread")[0] == 200
    assert running.ready()["aliases"] == {"champion": "abread", "candidate": None}
    assert ask("adapters/unload", "abread")[0] == 409
    assert ask("adapters/unload", "aahoy")[0] == 200
    assert set(running.ready()["adapters"]) == {"abread"}
    assert ask("adapters/unload", "aahoy")[0] == 200
    weights = served.home.adapter("aahoy") / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    status, told = ask("adapters/load", "aahoy")
    weights.write_bytes(whole)
    assert (status, told["error"]["code"]) == (422, "adapter_unfit")
    assert ask("adapters/load", "aahoy")[0] == 200


def test_no_answer_is_dropped_or_mixed_while_adapters_are_swapped(running: Running, client: OpenAI, served: Served) -> None:
    for name in ("aahoy", "abread"):
        assert running.ask("POST", "/api/adapters/load", {"adapter_id": name})[0] == 200
    alone = {name: chat(client, name, 40).choices[0].message.content for name in ("aahoy", "abread")}
    alone[served.base.base_id] = chat(client, served.base.base_id, 40).choices[0].message.content
    assert len(set(alone.values())) == 3
    answers: list[tuple[str, str]] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            answers.append(streamed(client, "champion", 40))

    def swap(name: str | None) -> None:
        before = len(answers)
        assert running.ask("POST", "/api/aliases/champion", {"adapter_id": name})[0] == 200
        if name is None:
            assert running.ask("POST", "/api/adapters/unload", {"adapter_id": "abread"})[0] == 200
            assert running.ask("POST", "/api/adapters/load", {"adapter_id": "abread"})[0] == 200
        until(lambda: (name or served.base.base_id) in {model for model, _ in answers[before:]}, SECONDS)

    with ThreadPoolExecutor(6) as pool:
        readers = [pool.submit(read) for _ in range(6)]
        try:
            for adapter_id in ("abread", None, "aahoy") * 4:
                swap(adapter_id)
        finally:
            done.set()
        for reader in readers:
            reader.result()
    assert {name for name, _ in answers} == set(alone)
    assert all(text == alone[name] for name, text in answers)


def test_a_stop_lets_answers_finish_refuses_new_ones_and_tells_nothing_of_prompts(running: Running, client: OpenAI) -> None:
    stream = chat(client, "aahoy", 200, stream=True)
    next(stream)
    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(lambda: [event.choices[0] for event in stream])
        assert running.stop() == 0
        assert rest.result()[-1].finish_reason == "length"
    with pytest.raises(openai.APIConnectionError):
        chat(client, "aahoy")
    said = running.said
    assert MARK not in said
    assert "Traceback" not in said
    assert " 500 " not in said
    assert "stopping" in said


def test_the_token_is_private_and_a_server_without_one_stays_on_loopback(served: Served, tmp_path: Path) -> None:
    assert served.home.server_token.stat().st_mode & 0o777 == 0o600
    home = Home(tmp_path)
    anybody = SETTINGS.serve.model_copy(update={"token": "none", "host": "0.0.0.0"})
    with pytest.raises(UsageError, match="where others can reach it"):
        tokens_of(home, anybody)
    assert not tokens_of(home, anybody.model_copy(update={"host": "::1"})).needed
    assert [on_loopback(host) for host in ("127.0.0.9", "localhost", "::1", "::", "192.0.2.1", "example.org")] == [
        *[True] * 3,
        *[False] * 3,
    ]
    assert tokens_of(home, SETTINGS.serve).needed
    home.server_token.write_text("\n")
    with pytest.raises(UsageError, match="holds no token"):
        tokens_of(home, SETTINGS.serve)
    tokens = Tokens(("one", "two"))
    assert len({tokens.holder("Bearer one"), tokens.holder("bearer two")}) == 2
    assert [tokens.holder(header) for header in (None, "", "one", "Basic one", "Bearer ", "Bearer three")] == [None] * 6


def test_the_command_says_what_is_missing(tmp_path: Path, served: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run(served.home.root, "serve", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert "cannot listen on 127.0.0.1" in complaint(done)
    done = run(served.home.root, "serve", "--mailbox", "other")
    assert done.returncode == 2
    assert "there is no mailbox 'other'" in complaint(done)
