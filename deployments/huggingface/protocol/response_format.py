"""OpenAI's `response_format`: plain text, any JSON object, or JSON under a schema.

A schema is enforced with `strict` and without it; what cannot be enforced is refused, not dropped.
"""

from typing import Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from deployments.huggingface.protocol.strict import Strict


class JsonSchema(Strict):
    """A schema, and the name that OpenAI's form gives it."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Strict):
    """What the answer must be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _check_schema(self) -> "ResponseFormat":
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise PydanticCustomError(
                "json_schema", "'json_schema' belongs to the type 'json_schema', which needs it"
            )
        return self

    @property
    def schema_(self) -> dict[str, Any] | None:
        """The JSON schema of the answer, if it must have one."""
        if self.type == "text":
            return None
        return self.json_schema.schema_ if self.json_schema else {"type": "object"}
