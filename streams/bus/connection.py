"""How a Kafka broker is reached: options for the clients, and one clear sentence when it cannot be.

The client library reports every trouble on the way in as "unable to bootstrap". So when a start fails, :func:`fault` goes
the way once more, step by step (name, port, TLS, login, the addresses that the broker sends clients on to), and says at
which it ends.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any, Protocol, TypeVar

from pipeline.config.bus_settings import BusSettings
from pipeline.errors import BusError
from streams.bus.library_log import calm

CONNECT_SECONDS = 10.0
"""How long each step of the way in may take when :func:`fault` goes it."""
END_SECONDS = 5.0
"""How long a client may take to say goodbye."""
REQUEST_SECONDS = 30.0
"""How long a request to a broker may take, its repetitions included, before it counts as unanswered."""
OTHER_NAME = (62, 64)
"""OpenSSL's codes for a certificate of another host (62) or address (64)."""


class Client(Protocol):
    """What the library's producer, consumer and admin client share, apart from the name of their end."""

    async def start(self) -> None: ...


AnyClient = TypeVar("AnyClient", bound=Client)


def client_options(settings: BusSettings) -> dict[str, Any]:
    """Arguments for any client of aiokafka. With TLS the brokers are verified, by the system's certificates or ``ca_file``.

    Raises ``BusError`` for a ``ca_file`` that is none, ``SecretError`` when the password cannot be had.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": addresses(settings),
        "client_id": f"{settings.prefix}mailtide",
        "security_protocol": _protocol(settings),
        "request_timeout_ms": int(REQUEST_SECONDS * 1000),
    }
    if settings.tls:
        options["ssl_context"] = tls_context(settings)
    if settings.sasl != "none":
        options |= {
            "sasl_mechanism": settings.sasl.upper(),
            "sasl_plain_username": settings.user,
            "sasl_plain_password": _password(settings),
        }
    return options


def faust_options(settings: BusSettings) -> dict[str, Any]:
    """Arguments for ``faust.App``: the broker, and credentials where there are any. Raises as :func:`client_options`."""
    import faust

    options: dict[str, Any] = {"broker": ";".join(f"kafka://{address}" for address in addresses(settings))}
    context = tls_context(settings) if settings.tls else None
    if settings.sasl != "none":
        options["broker_credentials"] = faust.SASLCredentials(
            username=settings.user,
            password=_password(settings),
            ssl_context=context,
            mechanism=settings.sasl.upper(),
        )
    elif context is not None:
        options["broker_credentials"] = faust.SSLCredentials(context)
    return options


def addresses(settings: BusSettings) -> list[str]:
    """host:port of each broker named; raises ``BusError`` for one without a port."""
    listed = [address.strip() for address in settings.brokers.split(",") if address.strip()]
    for address in listed:
        host, colon, port = address.rpartition(":")
        if not (host and colon and port.isdigit()):
            raise BusError(f"bus.brokers names {address!r}, which is no host:port", hint="write it as in 127.0.0.1:9092")
    if not listed:
        raise BusError("bus.brokers names no broker", hint="write it as in 127.0.0.1:9092")
    return listed


def tls_context(settings: BusSettings) -> ssl.SSLContext:
    """Verifies certificate and name; raises ``BusError`` when ``ca_file`` cannot be read as certificates."""
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:  # of a file that holds none, too
        raise BusError(
            f"bus.ca_file names {settings.ca_file}, which cannot be read as certificates ({error.strerror or error})",
            hint="name a PEM file with the certificate of the brokers' authority",
        ) from error


async def started(client: AnyClient, settings: BusSettings) -> AnyClient:
    """Starts a client; raises ``BusError`` that says why no broker could be used, with the client closed."""
    from aiokafka.errors import KafkaError

    calm()
    try:
        await client.start()
    except (KafkaError, OSError, TimeoutError) as error:
        await ended(client)
        raise await fault(settings, error) from error
    except BaseException:
        await ended(client)
        raise
    return client


async def ended(client: Client) -> None:
    """Ends a client, also one whose broker is gone: what it then raises, cancellations included, is of no interest."""
    end = getattr(client, "stop", None) or client.close  # type: ignore[attr-defined]
    ending = asyncio.ensure_future(end())
    done, _ = await asyncio.wait([ending], timeout=END_SECONDS)
    if not done:
        ending.cancel()
    elif not ending.cancelled():
        ending.exception()


async def fault(settings: BusSettings, error: BaseException) -> BusError:
    """Why the brokers cannot be used, found by trying; ``error`` is what the client said, for when all seems well now."""
    for address in addresses(settings):
        found = await _fault_at(address, settings)
        if found is not None:
            return found
    said = " ".join(str(error).split()) or type(error).__name__
    return BusError(f"the broker at {settings.brokers} did not answer as it should: {said}", hint="try again")


async def _fault_at(address: str, settings: BusSettings) -> BusError | None:
    """What is wrong on the way to one broker; None when nothing is."""
    from aiokafka.conn import create_conn
    from aiokafka.errors import KafkaError
    from aiokafka.protocol.metadata import MetadataRequest

    host, port = _parts(address)
    options = client_options(settings)
    del options["bootstrap_servers"]
    options["request_timeout_ms"] = int(CONNECT_SECONDS * 1000)
    try:
        connection = await create_conn(host, port, **options)
        try:
            metadata = await connection.send(MetadataRequest([]))
        finally:
            connection.close()
    except (KafkaError, OSError, TimeoutError) as error:
        return await _named(address, settings, error)
    for broker in metadata.brokers:
        onward = f"{broker[1]}:{broker[2]}"
        if not await _answers(broker[1], broker[2]):
            return BusError(
                f"the broker at {address} sends clients on to {onward}, where nothing answers",
                hint="its advertised.listeners must name an address that this machine reaches",
            )
    return None


async def _named(address: str, settings: BusSettings, error: Exception) -> BusError:
    """The error of a step on the way in, as a sentence with its next step."""
    from aiokafka import errors as kafka

    reason: BaseException = error.__cause__ or error
    at = f"the broker at {address}"
    if isinstance(reason, socket.gaierror):
        return BusError(f"there is no host {_parts(address)[0]}", hint="check bus.brokers")
    if isinstance(reason, ssl.SSLCertVerificationError):
        if reason.verify_code in OTHER_NAME:
            return BusError(
                f"{at} shows the certificate of another host ({reason.verify_message})",
                hint="name the host in bus.brokers as the certificate does",
            )
        return BusError(
            f"{at} shows a certificate that is not trusted ({reason.verify_message})",
            hint="name the certificate of its authority in bus.ca_file",
        )
    if isinstance(reason, (kafka.SaslAuthenticationFailed, kafka.AuthenticationFailedError)):
        return BusError(
            f"{at} refuses the login of {settings.user} ({settings.sasl})",
            hint="check bus.user and the password that bus.secret leads to",
        )
    if isinstance(reason, kafka.UnsupportedSaslMechanismError):
        return BusError(f"{at} does not know the login {settings.sasl}", hint="set bus.sasl to one that it offers")
    if isinstance(reason, kafka.IllegalSaslStateError):
        return BusError(f"{at} asks for no login", hint="set bus.sasl: none, or name the broker's SASL port")
    if not await _answers(*_parts(address)):
        return BusError(f"no broker answers at {address}", hint="start it, or name another in bus.brokers")
    if settings.tls != await _speaks_tls(*_parts(address)):
        if settings.tls:
            return BusError(f"{at} does not speak TLS", hint="set bus.tls: false, or name the broker's TLS port")
        return BusError(f"{at} speaks TLS only", hint="set bus.tls: true")
    if settings.sasl == "none":
        return BusError(
            f"{at} ends the connection without a word", hint="if it asks for a login, set bus.sasl, bus.user and bus.secret"
        )
    return BusError(f"what answers at {address} is no Kafka broker", hint="check host and port in bus.brokers")


async def _answers(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def _speaks_tls(host: str, port: int) -> bool:
    """Whether a TLS server answers there, whoever it is: nothing is sent to it."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _parts(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _protocol(settings: BusSettings) -> str:
    transport = "SSL" if settings.tls else "PLAINTEXT"
    return transport if settings.sasl == "none" else f"SASL_{transport}"


def _password(settings: BusSettings) -> str:
    from streams.secrets import secret_of

    assert settings.secret is not None  # BusSettings asks for it with sasl
    return secret_of(settings.secret)
