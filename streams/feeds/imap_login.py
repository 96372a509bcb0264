"""From settings to a connection that is logged in: TLS verified, the secret fetched for this login and then let go of."""

from __future__ import annotations

import base64
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

from imapclient import IMAPClient
from imapclient.exceptions import CapabilityError, IMAPClientAbortError, IMAPClientError

from pipeline.config.feed_settings import ImapFeedSettings
from pipeline.errors import FeedError, SecretError, SourceAway
from streams.feeds.imap_errors import AGAIN, PASSING, reason, unreachable, words
from streams.secrets import place_of, secret_of

KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 20, "TCP_KEEPCNT": 4}


def server_of(settings: ImapFeedSettings) -> str:
    """The server, for people."""
    return f"IMAP server {settings.host}:{settings.port}"


def connect(settings: ImapFeedSettings) -> IMAPClient:
    """A connection, encrypted and logged in as the settings say.

    Raises ``SourceAway`` when the server does not answer, or a command gives no secret just now; ``FeedError`` with the fix
    when it is not trusted, or refuses the login.
    """
    client = _reach(settings)
    try:
        client.normalise_times = False  # dates keep their zone
        client._imap.debug = 0  # IMAPClient turns on a log of everything, formatted whether or not it is kept
        _keep_alive(client.socket())
        _log_in(client, settings)
    except BaseException:
        shut(client)
        raise
    return client


def shut(client: IMAPClient) -> None:
    """Ends a connection without a word; what another thread waits for on it ends too."""
    with suppress(OSError):
        client.socket().shutdown(socket.SHUT_RDWR)
    with suppress(OSError):
        client.shutdown()


def _reach(settings: ImapFeedSettings) -> IMAPClient:
    context = None if settings.security == "none" else _trust(settings)
    server = server_of(settings)
    client: IMAPClient | None = None
    try:
        client = IMAPClient(
            settings.host,
            settings.port,
            ssl=settings.security == "tls",
            ssl_context=context if settings.security == "tls" else None,
            timeout=settings.timeout,
        )
        if settings.security == "starttls":
            client.starttls(context)
        return client
    except (OSError, IMAPClientError) as error:
        if client is not None:
            shut(client)
        if isinstance(error, OSError):
            raise unreachable(server, error, settings) from error
        if isinstance(error, CapabilityError):
            raise FeedError(f"{server} offers no STARTTLS", hint="set security: tls and the port for it") from error
        if isinstance(error, IMAPClientAbortError) or words(error).startswith("* BYE"):
            raise SourceAway(f"{server} ended the connection ({words(error)})", hint=AGAIN) from error
        raise FeedError(f"{server} does not let clients in: {words(error)}", hint="check host and port") from error


def _trust(settings: ImapFeedSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:
        raise FeedError(
            f"no certificates can be read from {settings.ca_file}: {reason(error)}", hint="ca_file names a file in PEM form"
        ) from error


def _keep_alive(connection: socket.socket) -> None:
    """Has the system find out, within minutes, that the other side has gone without a word (a suspended laptop, a NAT)."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _log_in(client: IMAPClient, settings: ImapFeedSettings) -> None:
    """The failure is raised outside of what handles it, so that it carries no frame that has seen the secret."""
    failure = _attempt(client, settings)
    if failure is not None:
        raise failure


def _attempt(client: IMAPClient, settings: ImapFeedSettings) -> Exception | None:
    try:
        secret = secret_of(settings.secret)
    except SecretError as error:
        # A command may well give it later: a locked keyring, a token that needs the network.
        kind = SourceAway if settings.secret.command is not None else FeedError
        return kind(error.message, hint=error.hint)
    server = server_of(settings)
    try:
        _send(client, settings, secret)
    except TimeoutError:
        return SourceAway(f"{server} did not answer to the login for {settings.timeout:g} seconds", hint=AGAIN)
    except OSError as error:
        return SourceAway(f"the connection to {server} broke: {reason(error)}", hint=AGAIN)
    except CapabilityError as error:
        return FeedError(f"{server} {words(error)}", hint="set auth or security to what it offers")
    except IMAPClientError as error:
        said = _said(error, secret)
        # A connection that ends inside a login comes as a refused login, with what really happened behind it.
        if isinstance(error.__context__, IMAPClientAbortError) or PASSING.search(said):
            return SourceAway(f"{server} ended the connection at the login{said and f' ({said})'}", hint=AGAIN)
        what = "password" if settings.auth == "password" else "token"
        return FeedError(
            f"{server} refuses the {what} of {settings.user}{said and f' ({said})'}",
            hint=f"the {what} comes from the {place_of(settings.secret)}: put one there that the server takes",
        )
    return None


def _send(client: IMAPClient, settings: ImapFeedSettings, secret: str) -> None:
    """Raises what ``imapclient`` does."""
    user = settings.user
    if settings.auth == "xoauth2":
        client.sasl_login("XOAUTH2", _once(f"user={user}\1auth=Bearer {secret}\1\1".encode()))
    elif client.has_capability("AUTH=PLAIN"):
        client.sasl_login("PLAIN", _once(f"\0{user}\0{secret}".encode()))
    elif client.has_capability("LOGINDISABLED"):
        raise CapabilityError("takes no passwords over this connection")
    elif not (user + secret).isascii():
        raise CapabilityError("takes no password with letters beyond ASCII")
    else:
        client.login(user, secret)


def _once(answer: bytes) -> Callable[[bytes], bytes]:
    """Answers the first challenge; a later one holds why the server refuses, and wants an empty answer."""
    answers = iter([answer])
    return lambda challenge: next(answers, b"")


def _said(error: Exception, secret: str) -> str:
    """What the server said, unless it repeats the secret in plain or in base64."""
    said = words(error)
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
    return "" if secret in said or encoded[:8] in said or "AUTHENTICATE" in said.upper() else said
