"""Requests and answers as OpenAI's API has them, as far as this server honours them.

What it does not honour is refused by name, but for values that ask for nothing: clients send those along.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from retrain.serving.asked import Sampling

Nothing = Annotated[float, Field(ge=0, le=0)]
One = Annotated[int, Field(ge=1, le=1)]
StopString = Annotated[str, Field(min_length=1, max_length=200)]
MOST_SEED = 2**63 - 1


class Wire(BaseModel):
    """A field that is not declared is refused, so that nothing is taken and then ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _is_text(cls, asked: Any) -> Any:
        """JSON can spell half a surrogate pair (as ``\\ud800``), which no tokenizer and no file takes."""
        try:
            json.dumps(asked, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError as error:
            raise ValueError("half a surrogate pair is no character") from error
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error
        return asked


class TextPart(Wire):
    """A part of a message; only text is read."""

    type: Literal["text"]
    text: str


class Message(Wire):
    """One turn. ``developer`` is read as ``system``; what tools would add must be empty."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    refusal: None = None
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None
    function_call: None = None
    audio: None = None
    annotations: list[Any] | None = Field(default=None, max_length=0)

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)

    def plain(self) -> dict[str, str]:
        """Role and text."""
        return {"role": "system" if self.role == "developer" else self.role, "content": self.text}


class StreamOptions(Wire):
    """``include_usage`` adds a last chunk with the counts."""

    include_usage: bool | None = False
    include_obfuscation: Literal[False] | None = None


class Asked(Wire):
    """What both kinds of completion have in common."""

    model: str = Field(description="an adapter's id, the base's id, champion or candidate")
    max_tokens: int | None = Field(default=None, ge=1, description="default: serve.max_tokens, or what room there is")
    temperature: float | None = Field(default=None, ge=0, le=2, description="default: 1; 0 takes the likeliest token")
    top_p: float | None = Field(default=None, gt=0, le=1, description="default: 1")
    stop: StopString | Annotated[list[StopString], Field(max_length=4)] | None = None
    seed: int | None = Field(default=None, ge=-MOST_SEED, le=MOST_SEED, description="the same seed draws the same answer")
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: One | None = None
    presence_penalty: Nothing | None = None
    frequency_penalty: Nothing | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    user: str | None = Field(default=None, description="not looked at")
    top_k: Literal[-1, 0] | None = Field(default=None, description="only as it means nothing")
    min_p: Nothing | None = None
    repetition_penalty: Annotated[float, Field(ge=1, le=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _null_asks_for_nothing(cls, asked: Any) -> Any:
        """Also of what this server does not know: clients send what they leave unset as null."""
        return {name: value for name, value in asked.items() if value is not None} if isinstance(asked, dict) else asked

    @property
    def stops(self) -> tuple[str, ...]:
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with its counts."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def sampling(self, max_tokens: int) -> Sampling:
        """How tokens are to be chosen, with OpenAI's defaults."""
        return Sampling(
            max_tokens=max_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            stop=self.stops,
            seed=self.seed,
        )

    @model_validator(mode="after")
    def _options_belong_to_a_stream(self) -> Asked:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only for stream: true")
        return self


class ChatAsked(Asked):
    """``retrieval`` and ``citations`` are this server's own."""

    messages: list[Message] = Field(min_length=1, max_length=1_000)
    max_completion_tokens: int | None = Field(default=None, ge=1, description="the newer name of max_tokens")
    retrieval: bool | None = Field(
        default=None, description="answer from the mailbox, citing mails; default: serve.retrieval"
    )
    citations: int | None = Field(default=None, ge=1, le=50, description="mails to quote at most; default: serve.citations")
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None
    response_format: TextFormat | None = None
    modalities: list[Literal["text"]] | None = Field(default=None, min_length=1, max_length=1)
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[Any], Field(max_length=0)] | None = None
    function_call: Literal["none", "auto"] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    metadata: dict[str, str] | None = Field(default=None, description="not looked at")
    safety_identifier: str | None = Field(default=None, description="not looked at")
    prompt_cache_key: str | None = Field(default=None, description="not looked at")

    @property
    def asked_tokens(self) -> int | None:
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens


class TextFormat(Wire):
    """The only format of an answer."""

    type: Literal["text"]


class CompletionAsked(Asked):
    """A text to go on with."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)]
    echo: Literal[False] | None = None
    best_of: One | None = None
    suffix: None = None
    logprobs: None = None

    @property
    def text(self) -> str:
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]


class Usage(BaseModel):
    """Tokens of the model's own tokenizer; ``completion_tokens`` are all that it wrote, an end mark included."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, prompt: int, completion: int) -> Usage:
        return cls(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


class CitedMail(BaseModel):
    """A mail that was quoted to the model, as ``[number]``; ``date`` is ISO 8601, UTC; ``passage`` is what was quoted."""

    number: int
    message_id: str
    thread_id: str
    sender: str
    date: str
    subject: str
    passage: str
    score: float


class ChatMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str


class ChatChoice(BaseModel):
    index: int = 0
    message: ChatMessage
    finish_reason: Literal["stop", "length"]


class ChatCompletion(BaseModel):
    """``model`` is the adapter, or the base, that wrote the answer. ``citations`` is null without retrieval; ``notice``
    says, where fewer mails are quoted to the model than were found, or none, that it is so and why."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    citations: list[CitedMail] | None = None
    notice: str | None = None


class TextChoice(BaseModel):
    index: int = 0
    text: str
    finish_reason: Literal["stop", "length"]


class Completion(BaseModel):
    """A text, gone on with; `model` is the adapter, or the base, that wrote it."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage


class Model(BaseModel):
    """A name that a request may use; ``root`` is the adapter or base that it stands for now."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "mailtide"
    root: str


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]
