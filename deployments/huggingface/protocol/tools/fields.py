"""The fields of a chat that are about tools, in OpenAI's form, read strictly."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from deployments.huggingface.protocol.strict import Strict
from deployments.huggingface.protocol.tools.arguments import read_arguments

NAME = r"^[a-zA-Z0-9_.-]{1,64}$"
CHOICES = ("none", "auto", "required")
CHOICE_FORMS = (
    "expected 'none', 'auto', 'required' or {'type': 'function', 'function': {'name': ...}}"
)


def _check_parameters(schema: dict[str, Any]) -> dict[str, Any]:
    if schema.get("type", "object") != "object":
        raise PydanticCustomError("invalid_parameters", "a function's parameters are an object")
    return schema


class Function(Strict):
    """A function that the model may call. `strict`: its parameters are enforced in any call, not
    only in one that must come."""

    name: str = Field(pattern=NAME)
    description: str | None = None
    parameters: Annotated[dict[str, Any], AfterValidator(_check_parameters)] | None = None
    strict: bool | None = None

    @property
    def schema_(self) -> dict[str, Any]:
        """The JSON schema of its arguments: without parameters it takes none."""
        if self.parameters is None:
            return {"type": "object", "properties": {}, "additionalProperties": False}
        return {"type": "object", **self.parameters}

    @property
    def as_called(self) -> "Function":
        """What is enforced where the model is free to call or not."""
        return self if self.strict else Function(name=self.name, parameters={"type": "object"})


class Tool(Strict):
    """A tool; functions are the only kind."""

    type: Literal["function"]
    function: Function

    def for_template(self) -> dict[str, Any]:
        """What chat templates expect of a tool: they look into its parameters."""
        fields = self.function.model_dump(exclude_none=True, exclude={"strict"})
        fields.setdefault("parameters", {"type": "object", "properties": {}})
        return {"type": "function", "function": fields}


def _check_arguments(text: str) -> str:
    if read_arguments(text or "{}") is None:
        raise PydanticCustomError("invalid_arguments", "expected a JSON object, as a string")
    return text


class CalledFunction(Strict):
    """A function that an earlier answer called; the arguments are JSON in a string."""

    name: str
    arguments: Annotated[str, AfterValidator(_check_arguments)]
    parsed_arguments: Any = None  # OpenAI's client sends back what it has made of an answer


class ToolCall(Strict):
    """A call in an earlier answer."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction
    index: Any = None  # from clients that send back what they have put together from a stream

    def for_template(self) -> dict[str, Any]:
        """What chat templates expect of a call: arguments as an object, not as a string."""
        arguments = read_arguments(self.function.arguments or "{}")
        function = {"name": self.function.name, "arguments": arguments}
        return {"id": self.id, "type": "function", "function": function}


def _read_choice(value: object) -> object:
    """A choice by name as the name in a list of one, so that it is not taken for a mode."""
    match value:
        case None:
            return value
        case str() if value in CHOICES:
            return value
        case {"type": "function", "function": {"name": str(name), **others}, **more}:
            if not others and not more:
                return [name]
    raise PydanticCustomError("invalid_choice", CHOICE_FORMS)


ToolChoice = Annotated[str | list[str] | None, BeforeValidator(_read_choice)]
