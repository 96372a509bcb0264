"""Where a mailbox's mail comes from, and where the passwords for it are kept; never the passwords themselves."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pipeline.config.groups import Group


class SecretSettings(Group):
    """Where a password or token is: one of the three. It is asked for whenever it is needed, and kept nowhere."""

    env: str | None = Field(default=None, description="name of an environment variable")
    keyring: str | None = Field(default=None, description="SERVICE/USER in the system's keyring")
    command: str | None = Field(default=None, description="command that prints it (run without a shell)")

    @model_validator(mode="after")
    def _one_place(self) -> SecretSettings:
        if sum(place is not None for place in (self.env, self.keyring, self.command)) != 1:
            raise ValueError("name exactly one of env, keyring and command")
        return self


class MboxFeedSettings(Group):
    """An mbox file that mail is appended to."""

    kind: Literal["mbox"]
    path: str = Field(description="the file")
    poll: PositiveFloat = Field(default=30.0, description="seconds between looks, where changes are not told of")


class MaildirFeedSettings(Group):
    """A Maildir folder."""

    kind: Literal["maildir"]
    path: str = Field(description="the folder that holds new and cur")
    poll: PositiveFloat = Field(default=30.0, description="seconds between looks, where changes are not told of")


class ImapFeedSettings(Group):
    """Folders of an IMAP account; nothing there is ever changed, not even a flag."""

    kind: Literal["imap"]
    host: str = Field(description="the server")
    port: PositiveInt = Field(default=993, description="its port")
    user: str = Field(description="name to log in with")
    secret: SecretSettings = Field(description="where the password or token is")
    auth: Literal["password", "xoauth2"] = Field(default="password", description="how to log in")
    folders: tuple[str, ...] = Field(default=("INBOX",), min_length=1, description="folders to read, each a feed")
    security: Literal["tls", "starttls", "none"] = Field(default="tls", description="none: on loopback only")
    ca_file: str | None = Field(default=None, description="certificates to trust instead of the system's")
    idle: bool = Field(default=True, description="let the server push (IDLE)")
    poll: PositiveFloat = Field(default=60.0, description="seconds between looks, where the server does not push")
    timeout: PositiveFloat = Field(default=60.0, description="seconds without an answer before a connection is given up")

    @model_validator(mode="after")
    def _nothing_in_the_open(self) -> ImapFeedSettings:
        if self.security == "none" and not is_loopback(self.host):
            raise ValueError(f"security: none would send the password to {self.host} in the open; use tls or starttls")
        return self


def is_loopback(host: str) -> bool:
    """Whether what is sent to a host stays on this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


FeedSettings = Annotated[MboxFeedSettings | MaildirFeedSettings | ImapFeedSettings, Field(discriminator="kind")]
