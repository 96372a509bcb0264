"""Who is told of verdicts, failures and windows that wait; never the passwords for it, only where they are."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from pipeline.config.feed_settings import SecretSettings, is_loopback
from pipeline.config.groups import Group

NoticeKind = Literal["promoted", "rejected", "abstained", "failed", "rolled_back", "regressed", "waiting", "stuck"]
KINDS: tuple[NoticeKind, ...] = (
    "promoted",
    "rejected",
    "abstained",
    "failed",
    "rolled_back",
    "regressed",
    "waiting",
    "stuck",
)
TARGET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")


class NoticeTarget(Group):
    """What every target has."""

    events: tuple[NoticeKind, ...] = Field(default=KINDS, min_length=1, description="what it is told of; default: all")
    timeout: PositiveFloat = Field(default=10.0, description="seconds for one try")


class WebhookTarget(NoticeTarget):
    """An address that takes Slack's incoming webhooks, ``{"text": ...}``, by POST."""

    kind: Literal["webhook"]
    url: str | None = Field(default=None, description="where it is, if that is no secret")
    secret: SecretSettings | None = Field(default=None, description="where the address is kept, if it is one")
    token: SecretSettings | None = Field(default=None, description="where a bearer token is, if one is asked for")
    ca_file: str | None = Field(default=None, description="certificates to trust instead of the system's")

    @model_validator(mode="after")
    def _one_address(self) -> WebhookTarget:
        if (self.url is None) == (self.secret is None):
            raise ValueError("name exactly one of url and secret")
        if self.url is not None:
            why = why_not_a_webhook(self.url)
            if why:
                raise ValueError(why)
        return self


class MailTarget(NoticeTarget):
    """Addresses, through a mail server."""

    kind: Literal["mail"]
    host: str = Field(description="the server that takes the mail")
    port: PositiveInt = Field(default=587, description="its port; 465 goes with security: tls")
    security: Literal["tls", "starttls", "none"] = Field(default="starttls", description="none: on loopback only")
    ca_file: str | None = Field(default=None, description="certificates to trust instead of the system's")
    user: str | None = Field(default=None, description="name to log in with, where the server asks")
    secret: SecretSettings | None = Field(default=None, description="where its password is")
    sender: str = Field(description="address that the mail is from")
    to: tuple[str, ...] = Field(min_length=1, description="addresses that it goes to")

    @field_validator("sender", "to")
    @classmethod
    def _addresses(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for address in (value,) if isinstance(value, str) else value:
            if not re.fullmatch(r"[^\s@<>,;:]+@[^\s@<>,;:]+", address):
                raise ValueError(f"{address!r} is no address, e.g. me@home.example")
        return value

    @model_validator(mode="after")
    def _nothing_in_the_open(self) -> MailTarget:
        if self.security == "none" and not is_loopback(self.host):
            raise ValueError(f"security: none would send to {self.host} in the open; use tls or starttls")
        if (self.user is None) != (self.secret is None):
            raise ValueError("user and secret go together")
        return self


class CommandTarget(NoticeTarget):
    """A program that gets the notice as JSON on its standard input; what it prints goes nowhere."""

    kind: Literal["command"]
    command: str = Field(min_length=1, description="program and arguments (run without a shell)")


TargetSettings = Annotated[WebhookTarget | MailTarget | CommandTarget, Field(discriminator="kind")]


class NotifySettings(Group):
    """Who is told what."""

    targets: dict[str, TargetSettings] = Field(
        default_factory=dict, description="per name: kind (webhook, mail or command) and where it is"
    )
    keep_days: PositiveFloat = Field(default=7.0, description="a notice that could not be sent for so long is given up")

    @field_validator("targets")
    @classmethod
    def _names(cls, targets: dict[str, TargetSettings]) -> dict[str, TargetSettings]:
        wrong = [name for name in targets if not TARGET_NAME.match(name)]
        if wrong:
            raise ValueError(f"names of targets are [a-z0-9][a-z0-9._-]{{0,63}}, not {', '.join(map(repr, wrong))}")
        return targets


def why_not_a_webhook(url: str) -> str:
    """Why an address is none that notices may be posted to, without repeating it; empty where nothing is wrong."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "the webhook's address cannot be read"
    if parts.scheme not in ("http", "https") or not host or re.search(r"[\s\x00-\x1f\x7f]", url) or not url.isascii():
        return "the webhook's address is no http or https address"
    if parts.username is not None:
        return "the webhook's address holds a name or password; use token"
    if parts.scheme == "http" and not is_loopback(host):
        return "the webhook's address would be posted to in the open; use https"
    return ""
