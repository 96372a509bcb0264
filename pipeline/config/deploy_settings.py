"""Where a promoted adapter goes, any number of places at once."""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from pipeline.config.feed_settings import SecretSettings
from pipeline.config.groups import Group

URL = r"^https?://[^\s/]+(/\S*)?$"


class ServerTargetSettings(Group):
    """A running ``mailtide serve``."""

    url: str | None = Field(default=None, pattern=URL, description="of mailtide serve, http://127.0.0.1:8250; null: none")
    secret: SecretSettings | None = Field(default=None, description="its token; default: the home's server.token")
    mailbox: str | None = Field(default=None, description="the one that it serves; default: the only one")


class VllmTargetSettings(Group):
    """A vLLM server with dynamic LoRA."""

    url: str | None = Field(default=None, pattern=URL, description="of vLLM, http://127.0.0.1:8000; null: none")
    secret: SecretSettings | None = Field(default=None, description="its API key: env, keyring or command")
    adapters: str | None = Field(default=None, description="the home's adapters/ as vLLM sees it; default: as it is here")
    mailbox: str | None = Field(default=None, description="the one whose base it runs; default: all of them")
    drain: NonNegativeFloat = Field(default=30.0, description="seconds between the flip and unloading the former adapter")


class WebhookTargetSettings(Group):
    """A receiver that is told what was promoted, without any text of mail."""

    url: str | None = Field(default=None, pattern=URL, description="that a signed JSON document is posted to; null: none")
    secret: SecretSettings | None = Field(default=None, description="to sign it with as well, beside the home's key")


class DeploySettings(Group):
    """What happens on promotion and on return to a former champion."""

    symlink: bool = Field(default=True, description="keep champions/MAILBOX pointing at the champion's folder")
    merged: bool = Field(default=False, description="keep merged/MAILBOX pointing at the champion as a whole model")
    server: ServerTargetSettings = ServerTargetSettings()
    vllm: VllmTargetSettings = VllmTargetSettings()
    webhook: WebhookTargetSettings = WebhookTargetSettings()
    seconds: PositiveFloat = Field(default=120.0, description="for one answer of a target")

    @property
    def on(self) -> tuple[str, ...]:
        """The names of the targets that are deployed to."""
        addressed = (name for name in ("server", "vllm", "webhook") if getattr(self, name).url is not None)
        return (*(name for name in ("symlink", "merged") if getattr(self, name)), *addressed)

    @model_validator(mode="after")
    def _secrets_have_urls(self) -> DeploySettings:
        for name in ("server", "vllm", "webhook"):
            group = getattr(self, name)
            if group.secret is not None and group.url is None:
                raise ValueError(f"{name}.secret is of no use without {name}.url")
        return self
