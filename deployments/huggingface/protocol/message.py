"""One turn of a conversation, in OpenAI's form, read strictly."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, model_validator
from pydantic_core import PydanticCustomError

from deployments.huggingface.protocol.strict import Ignored, Strict, Unsupported
from deployments.huggingface.protocol.tools.fields import ToolCall


def _join_text_parts(content: object) -> object:
    """A message's content as one string; parts are joined by a newline, as vLLM joins them."""
    if not isinstance(content, list):
        return "" if content is None else content
    if not content:
        raise PydanticCustomError("empty_array", "expected at least one part of content")
    return "\n".join(_text_of(part) for part in content)


def _text_of(part: object) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or not isinstance(kind, str):
        raise PydanticCustomError("invalid_type", "expected a string or an array of text parts")
    if kind != "text":
        raise PydanticCustomError(
            "unsupported_parameter", "this model takes parts of type 'text' only"
        )
    if not isinstance(part.get("text"), str):
        raise PydanticCustomError("invalid_type", "a text part needs 'text', a string")
    return str(part["text"])


class Message(Strict):
    """One turn of a conversation. Fields of earlier answers may be sent back and are ignored."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str, BeforeValidator(_join_text_parts)] = ""
    name: str | None = None
    refusal: Ignored = None
    annotations: Ignored = None
    parsed: Ignored = None
    reasoning: Ignored = None
    reasoning_content: Ignored = None
    audio: Unsupported = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: Unsupported = None

    @model_validator(mode="after")
    def _check_tool_fields(self) -> "Message":
        if (self.role == "tool") != (self.tool_call_id is not None):
            raise PydanticCustomError(
                "tool_call_id", "'tool_call_id' belongs to the role 'tool', which needs it"
            )
        if self.tool_calls and self.role != "assistant":
            raise PydanticCustomError("tool_calls", "'tool_calls' belong to the role 'assistant'")
        return self

    @property
    def is_about_tools(self) -> bool:
        """Whether it calls tools, or says what one answered."""
        return self.role == "tool" or bool(self.tool_calls)
