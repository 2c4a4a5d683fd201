"""What a client may ask of a Hugging Face model: the fields of both endpoints, read strictly.

A field is served, or known to change nothing here and ignored, or refused with its name. Nothing
that would change the answer is dropped silently. What needs the model (token ids, lengths) is
checked in plan.py.
"""

from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from deployments.body import parse_object
from deployments.huggingface.protocol.invalid import invalid_request
from deployments.huggingface.protocol.message import Message
from deployments.huggingface.protocol.response_format import ResponseFormat
from deployments.huggingface.protocol.strict import (
    Ignored,
    Strict,
    Unsupported,
    refuse_unless_empty,
)
from deployments.huggingface.protocol.tools.fields import Tool, ToolChoice

MAX_CHOICES = 128
MAX_PROMPTS = 2048
MAX_STOP_STRINGS = 16
MAX_TOP_LOGPROBS = 20
MAX_TOOLS = 128
INT64_MAX = 2**63 - 1


def _refuse_function_call(value: object) -> object:
    return value if value in ("none", "auto") else refuse_unless_empty(value)


def _refuse_modalities(value: object) -> object:
    return value if value == ["text"] else refuse_unless_empty(value)


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _is_token_ids(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(v) is int for v in value)


def _all_strings(values: list[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _all_token_ids(values: list[object]) -> bool:
    return all(_is_token_ids(value) for value in values)


def as_prompts(value: object) -> object:
    """The four forms of `prompt` as one: a list of strings and of lists of token ids."""
    if isinstance(value, str) or _is_token_ids(value):
        return [value]
    if isinstance(value, list) and value and (_all_strings(value) or _all_token_ids(value)):
        return value
    raise PydanticCustomError(
        "invalid_type",
        "expected a string, an array of strings, an array of token ids, "
        "or an array of arrays of token ids, none of them empty",
    )


class StreamOptions(Strict):
    """What a stream carries besides text."""

    include_usage: bool | None = None
    include_obfuscation: Ignored = None


class GenerationFields(Strict):
    """The fields that both endpoints share. None means: the checkpoint's or the API's default."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=-1, description="0 and -1: no limit")
    min_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-INT64_MAX - 1, le=INT64_MAX)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    repetition_penalty: float | None = Field(default=None, gt=0, le=10)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None

    max_tokens: int | None = Field(default=None, ge=1)
    min_tokens: int | None = Field(default=None, ge=0)
    stop: Annotated[list[Annotated[str, Field(min_length=1)]] | None, BeforeValidator(_as_list)] = (
        Field(default=None, max_length=MAX_STOP_STRINGS)
    )
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None

    user: Ignored = None
    response_format: ResponseFormat | None = None

    @model_validator(mode="after")
    def _check_stream_options(self) -> "GenerationFields":
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError("stream_options", "it is only allowed when 'stream' is true")
        return self


class ChatRequest(GenerationFields):
    """The body of /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)

    metadata: Ignored = None
    parallel_tool_calls: bool | None = None
    prediction: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_retention: Ignored = None
    safety_identifier: Ignored = None
    service_tier: Ignored = None
    store: Ignored = None

    audio: Unsupported = None
    function_call: Annotated[Any, AfterValidator(_refuse_function_call)] = None
    functions: Unsupported = None
    modalities: Annotated[Any, AfterValidator(_refuse_modalities)] = None
    reasoning_effort: Unsupported = None
    tool_choice: ToolChoice = None
    tools: list[Tool] | None = Field(default=None, max_length=MAX_TOOLS)
    verbosity: Unsupported = None
    web_search_options: Unsupported = None

    @model_validator(mode="after")
    def _check_top_logprobs(self) -> "ChatRequest":
        if self.top_logprobs is not None and not self.logprobs:
            raise PydanticCustomError("top_logprobs", "it is only allowed when 'logprobs' is true")
        return self


class CompletionRequest(GenerationFields):
    """The body of /v1/completions."""

    prompt: Annotated[list[Any], BeforeValidator(as_prompts)] = Field(max_length=MAX_PROMPTS)
    max_tokens: int | None = Field(default=None, ge=0, description="0: the echo alone")
    echo: bool | None = None
    logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    best_of: int | None = None
    suffix: Unsupported = None

    @model_validator(mode="after")
    def _check_combinations(self) -> "CompletionRequest":
        if self.max_tokens == 0 and not self.echo:
            raise PydanticCustomError("max_tokens", "it may only be 0 when 'echo' is true")
        if self.best_of not in (None, self.n or 1):
            raise PydanticCustomError(
                "best_of", "this backend does not support values other than that of 'n'"
            )
        return self

    @property
    def scored(self) -> bool:
        """Whether the prompt's own log probabilities are wanted."""
        return bool(self.echo) and self.logprobs is not None


Body = TypeVar("Body", bound=Strict)


def parse(kind: type[Body], body: bytes) -> Body:
    """The body as a request. Raises: InvalidRequest, whose `param` names the first wrong field."""
    fields = parse_object(body)
    try:
        return kind.model_validate(fields)
    except ValidationError as exc:
        raise invalid_request(exc) from None  # pydantic's text would repeat the client's values
