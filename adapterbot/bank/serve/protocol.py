"""OpenAI's requests, as far as they are honoured; what is not honoured is refused by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

Text = Annotated[str, Field(max_length=4 * 1024 * 1024)]
_STOPS = 4


class Refused(Exception):
    """A request that is answered with an error.

    Attributes:
        status: of HTTP.
        code: what a program looks at.
        param: the field it is about.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str = "invalid_request_error",
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """As OpenAI's clients read it."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {
            "error": {
                "message": str(self),
                "type": kind,
                "param": self.param,
                "code": self.code,
            }
        }


class _Closed(BaseModel):
    # Strict: `true` is no number of tokens, and "no" no way to say false.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TextPart(_Closed):
    """A part of a message; only text is understood."""

    type: Literal["text"]
    text: Text


class Message(_Closed):
    """One turn of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | tuple[TextPart, ...]
    name: Annotated[str, Field(max_length=200)] | None = None

    @property
    def turn(self) -> dict[str, str]:
        """As a chat template reads it: the content as one text, the name where there is one."""
        content = self.content
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        named = {} if self.name is None else {"name": self.name}
        return {"role": self.role, "content": text, **named}


class StreamOptions(_Closed):
    """What a stream tells besides text."""

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class ResponseFormat(_Closed):
    """The form of an answer; only the usual one, which leaves it to the model."""

    type: Literal["text"]


class _Request(_Closed):
    model: Annotated[str, Field(min_length=1, max_length=2000)]
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[str, Field(max_length=500)] | tuple[str, ...] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] = 1
    # Neither changes an answer: whoever asked is told apart by key.
    user: Annotated[str, Field(max_length=500)] | None = None
    metadata: dict[str, str] | None = None
    # What is off may be said to be off.
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    logit_bias: None = None

    @field_validator("frequency_penalty", "presence_penalty", mode="before")
    @classmethod
    def _zero(cls, value: object) -> object:
        return 0 if value == 0.0 and not isinstance(value, bool) else value

    @field_validator("stop")
    @classmethod
    def _few_and_not_empty(cls, value: str | tuple[str, ...] | None) -> object:
        stops = (value,) if isinstance(value, str) else value or ()
        if len(stops) > _STOPS or not all(0 < len(stop) <= 500 for stop in stops):
            raise ValueError(f"at most {_STOPS} strings of 1 to 500 characters")
        return value

    @field_validator("stream_options")
    @classmethod
    def _of_a_stream(cls, value: StreamOptions | None, info: ValidationInfo) -> object:
        if value is not None and not info.data.get("stream"):
            raise ValueError("is for a stream only")
        return value

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else self.stop or ()

    @property
    def usage_in_stream(self) -> bool:
        """Whether a stream ends with the number of tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatRequest(_Request):
    """POST /v1/chat/completions."""

    messages: Annotated[tuple[Message, ...], Field(min_length=1, max_length=1000)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: Literal[False] | None = None
    response_format: ResponseFormat | None = None

    @property
    def limit(self) -> int | None:
        """The most tokens to answer with."""
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(_Request):
    """POST /v1/completions."""

    prompt: Text | Annotated[tuple[Text], Field()]
    max_tokens: Annotated[int, Field(ge=1)] | None = 16
    logprobs: None = None
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None

    @property
    def limit(self) -> int | None:
        """The most tokens to answer with."""
        return self.max_tokens

    @property
    def text(self) -> str:
        """The prompt."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]


def parse(kind: type[ChatRequest] | type[CompletionRequest], body: bytes) -> Any:
    """A request from its JSON.

    Raises:
        Refused: 400, with the field.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        # What is no name there is pydantic's own word for one of several types.
        names = (str(part) for part in first["loc"])
        field = ".".join(name for name in names if name.isidentifier() or name.isdecimal())[:200]
        what = first["msg"].removeprefix("Value error, ").lower()
        if first["type"] in {"extra_forbidden", "none_required"}:
            what = "is not supported"
        raise Refused(400, f"{field or 'body'}: {what}", param=field or None) from error
