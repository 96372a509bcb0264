"""What carries mail and events between the parts of mailtide, and how much of it may be under way."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pipeline.config.feed_settings import SecretSettings
from pipeline.config.groups import Group


class BusSettings(Group):
    """``bus: kafka`` is short for ``bus: {kind: kafka}``."""

    kind: Literal["embedded", "kafka"] = Field(default="embedded", description="embedded needs no broker")
    brokers: str = Field(default="127.0.0.1:9092", description="host:port of the brokers, with commas")
    prefix: str = Field(default="", pattern=r"^[a-zA-Z0-9._-]*$", description="put before every topic and consumer name")
    tls: bool = Field(default=False, description="encrypt, and verify the brokers")
    ca_file: str | None = Field(default=None, description="certificates to trust instead of the system's")
    sasl: Literal["none", "plain", "scram-sha-256", "scram-sha-512"] = Field(default="none", description="how to log in")
    user: str | None = Field(default=None, description="name to log in with")
    secret: SecretSettings | None = Field(default=None, description="where the password is: env, keyring or command")
    partitions: PositiveInt = Field(default=8, description="of each topic, when mailtide makes it")
    replication: PositiveInt = Field(default=1, description="copies of each partition, when mailtide makes a topic")
    retention_days: PositiveFloat = Field(default=30.0, description="how long topics keep mail and events")
    in_flight: PositiveInt = Field(default=2_000, description="mails of a feed on their way at most")
    claim_check: PositiveInt = Field(default=512_000, description="bytes above which a mail travels as a file")
    max_attempts: PositiveInt = Field(default=5, description="refusals after which an event is set aside")
    assign: tuple[int, ...] = Field(default=(), description="partitions that this home's assigner owns; none: all")

    @model_validator(mode="before")
    @classmethod
    def _by_kind(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _sasl_is_whole(self) -> BusSettings:
        if self.sasl != "none" and (self.user is None or self.secret is None):
            raise ValueError("sasl needs user and secret")
        return self


class ParseSettings(Group):
    """How mail is parsed. More processes than 0 also guard against a mail that breaks a parser."""

    processes: int = Field(default=0, ge=0, description="parsers beside the main process; 0 parses in it")
    seconds: PositiveFloat = Field(default=60.0, description="for one mail, before it is a dead letter")
    memory_mb: PositiveInt = Field(default=2_048, description="for one parser process, before its mail is a dead letter")


class DaemonSettings(Group):
    """How ``mailtide run`` behaves."""

    log: Literal["text", "json"] = Field(default="text", description="lines for people, or one JSON object each")
    wait_for_mains: bool = Field(default=False, description="retrain only on mains power")
    idle_below: float | None = Field(
        default=None, gt=0.0, le=1.0, description="retrain only while the machine's load per core is below this"
    )
    metrics_port: int | None = Field(
        default=None, ge=0, le=65_535, description="port of 127.0.0.1 that answers Prometheus; 0 takes a free one"
    )
