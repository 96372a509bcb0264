"""A notice as a mail."""

from __future__ import annotations

import smtplib
from contextlib import suppress
from datetime import UTC
from email.message import EmailMessage
from email.utils import format_datetime

from pipeline.config.notice_settings import MailTarget
from pipeline.errors import NoticeError
from pipeline.times import utc_now
from streams.notices.notice import Notice
from streams.notices.trouble import of_connection, trusting
from streams.secrets import secret_of


def send(settings: MailTarget, notice: Notice) -> str:
    """Raises ``NoticeError`` unless the server took it for at least one address; says so if not for all.

    The Message-ID follows from the notice, so that whoever drops repeated mail drops a repeated notice. Nothing that the
    server says is repeated but its code: answers quote addresses and names.
    """
    message = as_mail(settings, notice)
    password = secret_of(settings.secret) if settings.secret is not None else ""
    trouble = ""
    try:
        refused = _sent(settings, message, password)
    except smtplib.SMTPRecipientsRefused as error:
        codes = sorted({code for code, _ in error.recipients.values()})
        trouble = f"refuses every address ({', '.join(map(str, codes))})"
    except smtplib.SMTPAuthenticationError as error:
        trouble = f"refuses the name or password ({error.smtp_code})"
    except smtplib.SMTPResponseException as error:
        trouble = f"refuses the mail ({error.smtp_code})"
    except smtplib.SMTPNotSupportedError:
        trouble = "does not offer what the settings ask for (STARTTLS or a login)"
    except (OSError, ValueError, smtplib.SMTPException) as error:  # a ValueError: a password that is not ASCII
        trouble = of_connection(error)
    if trouble:
        raise NoticeError(
            f"{settings.host}:{settings.port} {trouble}", hint="check host, security and login: `mailtide notify test`"
        )
    return f"{refused} of {len(settings.to)} addresses were refused" if refused else ""


def as_mail(settings: MailTarget, notice: Notice) -> EmailMessage:
    """The mail: marked as automatic, so that nobody's holiday answers it."""
    message = EmailMessage()
    message["From"] = settings.sender
    message["To"] = ", ".join(settings.to)
    message["Subject"] = f"mailtide {notice.title}"
    message["Date"] = format_datetime(utc_now().replace(tzinfo=UTC, microsecond=0))
    message["Message-ID"] = f"<{notice.token}@{settings.sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content("\n".join((notice.title, *notice.lines)) + "\n")
    return message


def _sent(settings: MailTarget, message: EmailMessage, password: str) -> int:
    """Speaks to the server; returns how many addresses it refused."""
    server: smtplib.SMTP
    if settings.security == "tls":
        context = trusting(settings.ca_file)
        server = smtplib.SMTP_SSL(settings.host, settings.port, timeout=settings.timeout, context=context)
    else:
        server = smtplib.SMTP(settings.host, settings.port, timeout=settings.timeout)
    try:
        if settings.security == "starttls":
            server.starttls(context=trusting(settings.ca_file))
        if settings.user is not None:
            server.login(settings.user, password)
        refused = len(server.send_message(message))
    except BaseException:
        server.close()
        raise
    # The mail is the server's by now: whatever becomes of the farewell, it is not to be sent again.
    with suppress(OSError, smtplib.SMTPException):
        server.quit()
    return refused
