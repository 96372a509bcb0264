"""What keeps a connection from being made, in words that repeat nothing of what the other side or an address says."""

from __future__ import annotations

import ssl

from pipeline.errors import NoticeError


def trusting(ca_file: str | None) -> ssl.SSLContext:
    """A context that verifies names and certificates; raises ``NoticeError`` when ``ca_file`` cannot be read."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise NoticeError(
            f"{ca_file} cannot be read as certificates ({error.strerror or type(error).__name__})",
            hint="name a file in PEM form as ca_file",
        ) from None


def of_connection(error: object) -> str:
    """Of an exception that a connection raised."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"shows a certificate that does not hold ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return "does not speak TLS as it should"
    if isinstance(error, TimeoutError):
        return "does not answer in time"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be reached ({error.strerror})"
    return f"does not answer as it should ({type(error).__name__})"
