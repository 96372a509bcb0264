"""Brokers that encrypt and ask for a password, and one clear sentence for each way of not getting in."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.bus_settings import BusSettings
from pipeline.config.feed_settings import SecretSettings
from pipeline.errors import BusError, SecretError
from streams.bus.connection import faust_options, tls_context
from streams.bus.topics import check_topics, create_topics, topic_states
from tests.support.certificates import Authority
from tests.support.kafka import Broker, Login, running

PASSWORD = "correct horse"
IN_ENVIRONMENT = SecretSettings(env="BROKER_PASSWORD")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Broker]:
    with running(tmp_path_factory.mktemp("secure"), authority, Login({"mailtide": PASSWORD})) as broker:
        yield broker


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_PASSWORD", PASSWORD)


def complaint(address: str, **others: Any) -> str:
    """What is said when the topics of that broker are asked for."""
    with pytest.raises(BusError) as failed:
        asyncio.run(topic_states(BusSettings(brokers=address, **others)))
    text = str(failed.value)
    assert "\n" not in text and failed.value.hint, text
    assert PASSWORD not in text
    return text


def login(mechanism: str = "scram-sha-256", **others: Any) -> dict[str, Any]:
    return {"sasl": mechanism, "user": "mailtide", "secret": IN_ENVIRONMENT, **others}


@pytest.mark.slow
@pytest.mark.parametrize("way", ["tls", "plain", "scram-sha-256", "plain over tls", "scram-sha-256 over tls"])
def test_topics_are_made_through_every_way_in(secure: Broker, authority: Authority, way: str) -> None:
    mechanism, _, over = way.partition(" over ")
    addresses = secure.addresses
    if way == "tls":
        options: dict[str, Any] = {"brokers": addresses.tls, "tls": True, "ca_file": str(authority.file)}
    elif over:
        options = {"brokers": addresses.sasl_tls, "tls": True, "ca_file": str(authority.file), **login(mechanism)}
    else:
        options = {"brokers": addresses.sasl, **login(mechanism)}
    settings = BusSettings(prefix=f"{way.replace(' ', '-')}.", partitions=1, **options)
    assert asyncio.run(create_topics(settings))
    asyncio.run(check_topics(settings))


@pytest.mark.slow
def test_each_way_of_not_getting_in_is_told_apart(
    secure: Broker, authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    addresses, trusted = secure.addresses, {"tls": True, "ca_file": str(authority.file)}
    assert "shows a certificate that is not trusted" in complaint(addresses.tls, tls=True)
    stranger = Authority(tmp_path / "stranger", "strangers")
    assert "bus.ca_file" in complaint(addresses.tls, tls=True, ca_file=str(stranger.file))
    assert "speaks TLS only; set bus.tls: true" in complaint(addresses.tls)
    assert "does not speak TLS" in complaint(addresses.plain, **trusted)
    assert "if it asks for a login, set bus.sasl" in complaint(addresses.sasl)
    assert "if it asks for a login, set bus.sasl" in complaint(addresses.sasl_tls, **trusted)
    assert "asks for no login" in complaint(addresses.plain, **login())
    assert "does not know the login scram-sha-512" in complaint(addresses.sasl, **login("scram-sha-512"))
    assert "refuses the login of nobody" in complaint(addresses.sasl_tls, **trusted, **login(user="nobody"))
    monkeypatch.setenv("BROKER_PASSWORD", "wrong")
    for mechanism in ("plain", "scram-sha-256"):
        told = complaint(addresses.sasl_tls, **trusted, **login(mechanism))
        assert f"refuses the login of mailtide ({mechanism}); check bus.user and the password" in told
    monkeypatch.delenv("BROKER_PASSWORD")
    with pytest.raises(SecretError, match="BROKER_PASSWORD is not set"):
        asyncio.run(topic_states(BusSettings(brokers=addresses.sasl, **login())))


@pytest.mark.slow
def test_the_name_in_the_certificate_must_be_the_brokers(tmp_path: Path, authority: Authority) -> None:
    import ssl

    other = authority.issue(tmp_path, host="broker.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(other.chain, other.key)

    async def attempt() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
        async with server:
            port = server.sockets[0].getsockname()[1]
            await topic_states(BusSettings(brokers=f"127.0.0.1:{port}", tls=True, ca_file=str(authority.file)))

    with pytest.raises(BusError, match=r"certificate of another host .*; name the host in bus\.brokers"):
        asyncio.run(attempt())


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    told = complaint(f"127.0.0.1:{port}")
    assert told == f"no broker answers at 127.0.0.1:{port}; start it, or name another in bus.brokers"
    assert "there is no host no-such-host.invalid; check bus.brokers" in complaint("no-such-host.invalid:9092")
    assert "names '127.0.0.1', which is no host:port" in complaint("127.0.0.1")
    assert "names no broker" in complaint(" , ")


def test_a_ca_file_that_is_none(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.pem", tmp_path):
        assert f"bus.ca_file names {path}, which cannot be read" in complaint("127.0.0.1:1", tls=True, ca_file=str(path))
    words = tmp_path / "words.pem"
    words.write_text("no certificate\n")
    with pytest.raises(BusError, match="cannot be read as certificates"):
        tls_context(BusSettings(tls=True, ca_file=str(words)))


def test_what_faust_is_given(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    assert faust_options(BusSettings(brokers="a:1, b:2")) == {"broker": "kafka://a:1;kafka://b:2"}
    encrypted = faust_options(BusSettings(tls=True, ca_file=str(authority.file)))["broker_credentials"]
    assert (encrypted.protocol.value, encrypted.context.verify_mode.name) == ("SSL", "CERT_REQUIRED")
    both = faust_options(BusSettings(tls=True, ca_file=str(authority.file), **login()))["broker_credentials"]
    assert (both.protocol.value, both.mechanism.value) == ("SASL_SSL", "SCRAM-SHA-256")
    assert (both.username, both.password, both.ssl_context.check_hostname) == ("mailtide", PASSWORD, True)
