"""What goes wrong between an IMAP server and its client, as the two kinds that a feed knows: away for now, or for good.

The libraries below raise one another's exceptions and hide an ended connection in a refused login; here they are told
apart. A secret may stand in what a server answers to a login, so nothing that was raised there goes on as a cause.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from imapclient.exceptions import IMAPClientAbortError, IMAPClientError

from pipeline.config.feed_settings import ImapFeedSettings
from pipeline.errors import FeedError, SourceAway

AGAIN = "it is tried again"
PASSING = re.compile(r"\[(?:UNAVAILABLE|INUSE|LIMIT|SERVERBUG)\b|too many|try again|temporar", re.IGNORECASE)
"""A refusal that may pass by itself: by its response code (RFC 5530), or the words of servers that send none."""


class Refused(FeedError):
    """The server answered NO or BAD to a command; ``said`` is what it said."""

    def __init__(self, server: str, said: str) -> None:
        super().__init__(f"{server} refuses: {said}", hint="ask who runs it")
        self.said = said


@contextmanager
def answering(server: str, seconds: float) -> Iterator[None]:
    """Maps what the libraries raise: ``Refused`` for a command that the server refuses, ``SourceAway`` for one that it
    cannot do now and for a connection that ended or was quiet for ``seconds``, ``FeedError`` for what is no IMAP."""
    try:
        yield
    except IMAPClientAbortError as error:
        raise SourceAway(f"{server} ended the connection ({words(error)})", hint=AGAIN) from error
    except IMAPClientError as error:
        said = words(error)
        if PASSING.search(said):
            raise SourceAway(f"{server} cannot do this now ({said})", hint=AGAIN) from error
        raise Refused(server, said) from error
    except TimeoutError as error:
        raise SourceAway(f"{server} did not answer for {seconds:g} seconds", hint=AGAIN) from error
    except OSError as error:
        raise SourceAway(f"the connection to {server} broke: {reason(error)}", hint=AGAIN) from error
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        AssertionError,
    ) as error:  # the parser of answers, at an answer that is none
        raise FeedError(f"{server} answered what is no IMAP", hint="check host and port") from error


def unreachable(server: str, error: OSError, settings: ImapFeedSettings) -> FeedError:
    """Why no connection could be made."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _untrusted(server, error, settings)
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        hint = "check port and security: 993 is usual for tls, 143 for starttls"
        return FeedError(f"{server} does not speak TLS as expected ({error.reason or reason(error)})", hint=hint)
    if isinstance(error, TimeoutError):
        return SourceAway(f"{server} did not answer for {settings.timeout:g} seconds", hint=AGAIN)
    return SourceAway(f"{server} cannot be reached: {reason(error)}", hint=f"{AGAIN}; check host and port if it stays so")


def _untrusted(server: str, error: ssl.SSLCertVerificationError, settings: ImapFeedSettings) -> FeedError:
    problem = error.verify_message.rstrip(".")
    if "mismatch" in problem or "not valid for" in problem:
        hint = "set host to a name that the certificate has"
    elif "expired" in problem:
        hint = "the server needs a new certificate"
    elif settings.ca_file:
        hint = f"{settings.ca_file} does not hold the certificate that signed it: set ca_file to one that does"
    else:
        hint = "if the server is yours, set ca_file to the certificate that signed it"
    return FeedError(f"the certificate of {server} is not trusted: {problem}", hint=hint)


def words(error: Exception) -> str:
    """What a server said, without the libraries' wrapping, in one line."""
    told = error.args[0] if error.args else ""
    text = told.decode("utf-8", "replace") if isinstance(told, bytes) else str(told)
    return " ".join(text.split())[:300]


def reason(error: OSError) -> str:
    """The system's word for it."""
    return error.strerror or str(error) or type(error).__name__
