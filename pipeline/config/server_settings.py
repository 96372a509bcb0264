"""Settings of the server that people point their tools at."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from pipeline.config.groups import Group


class ServeSettings(Group):
    """How ``mailtide serve`` listens, and how much it takes on."""

    host: str = Field(default="127.0.0.1", description="address to listen on; another than loopback needs a token")
    port: int = Field(default=8250, ge=0, le=65_535, description="port to listen on; 0 takes a free one")
    token: Literal["required", "none"] = Field(
        default="required", description="required: callers show a line of the home's server.token, made at the first start"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: a GPU where there is one")
    threads: PositiveInt | None = Field(default=None, description="CPU threads; default: 1 for the built-in model")
    while_training: Literal["beside", "refuse", "cpu"] = Field(
        default="beside",
        description="while a run trains here: answer beside it, give the device up and refuse (503), or answer by CPU",
    )
    batch: PositiveInt = Field(default=32, description="answers written side by side at most")
    batch_tokens: PositiveInt = Field(default=65_536, description="their tokens at most, prompts and answers")
    queue: PositiveInt = Field(default=128, description="requests that wait for a place at most, before 503")
    adapters: PositiveInt = Field(default=4, description="adapters in memory at most")
    candidate: bool = Field(default=True, description="serve the newest candidate, too, under the name candidate")
    max_tokens: PositiveInt = Field(default=256, description="length of an answer where the request names none")
    seconds: PositiveFloat = Field(default=120.0, description="for one request, from its first byte to its last")
    stop_seconds: PositiveFloat = Field(default=8.0, description="for running answers to finish when the server stops")
    body_bytes: PositiveInt = Field(default=1_000_000, description="a request's size at most")
    requests: PositiveInt = Field(default=512, description="requests under way at most, before 503")
    rate: int = Field(default=1_200, ge=0, description="requests a minute per token at most; 0: any number")
    retrieval: bool = Field(default=False, description="search the mailbox for every chat that does not say")
    citations: int = Field(default=5, ge=1, le=50, description="mails that are quoted to the model at most")
