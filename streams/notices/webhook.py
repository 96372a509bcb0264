"""A notice as a POST of ``{"text": ...}``, which Slack's incoming webhooks take, and those that copied them."""

from __future__ import annotations

import http.client
import json
import ssl
from http import HTTPStatus
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, OpenerDirector, Request, build_opener

from pipeline.config.notice_settings import WebhookTarget, why_not_a_webhook
from pipeline.errors import NoticeError
from streams.notices.notice import Notice
from streams.notices.trouble import of_connection, trusting
from streams.secrets import place_of, secret_of


def post(settings: WebhookTarget, notice: Notice) -> str:
    """Raises ``NoticeError`` unless it is answered with success. The address is named in no error if it is a secret.

    ``Idempotency-Key`` is the notice's id: a receiver that heeds it takes no repeat for another notice. A redirect is a
    refusal, as following it would turn the POST into a GET.
    """
    address = settings.url if settings.secret is None else secret_of(settings.secret)
    assert address is not None
    where = urlsplit(address).netloc if settings.secret is None else f"the webhook of {place_of(settings.secret)}"
    why = why_not_a_webhook(address)
    if why:
        raise NoticeError(f"{where}: {why}", hint="correct it there")
    request = Request(address, data=json.dumps({"text": notice.text}).encode(), method="POST")
    request.add_header("Content-Type", "application/json")
    request.add_header("User-Agent", "mailtide")
    request.add_header("Idempotency-Key", notice.token)
    if settings.token is not None:
        request.add_unredirected_header("Authorization", f"Bearer {secret_of(settings.token)}")
    trouble = ""
    try:
        with _opener(settings).open(request, timeout=settings.timeout):
            pass
    except HTTPError as error:
        trouble = f"answers {error.code} {_phrase(error.code)}".rstrip()
        error.close()
    except URLError as error:
        trouble = of_connection(error.reason)
    except (OSError, http.client.HTTPException, ValueError) as error:
        trouble = of_connection(error)
    if trouble:
        raise NoticeError(f"{where} {trouble}", hint="check its address and that it is up: `mailtide notify test`")
    return ""


class _Refusing(HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _opener(settings: WebhookTarget) -> OpenerDirector:
    context: ssl.SSLContext = trusting(settings.ca_file)
    return build_opener(_Refusing, HTTPSHandler(context=context))


def _phrase(code: int) -> str:
    return HTTPStatus(code).phrase if code in {status.value for status in HTTPStatus} else ""
