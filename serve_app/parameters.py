"""What the fields of a request may be, as far as the router can know for every backend.

It refuses what no backend could answer, so that a bad request costs nothing behind the router. What
a particular model allows (its context, its tools) is the backend's to say.
"""

from collections.abc import Mapping
from typing import Any

from deployments.body import MAX_ECHO_CHARS
from deployments.errors import InvalidRequest
from serve_app import fields
from serve_app.fields import Check, empty, integer, missing, number, wrong_type

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
MAY_BE_SILENT = ("assistant", "function")  # with tool calls in place of content
MAX_CHOICES = 128
MAX_TOOLS = 128
# Inner workings of a backend. A pickled tensor, a template that loops and the wiring between
# engines have been ways in (CVE-2025-62164, CVE-2025-61620), and no OpenAI client sends them.
REFUSED = ("prompt_embeds", "chat_template", "kv_transfer_params")


def check_fields(path: str, body: Mapping[str, Any]) -> None:
    """Raises: InvalidRequest, naming the first field that cannot be right."""
    for name in REFUSED:
        if name in body:
            raise InvalidRequest(
                f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter"
            )
    for name, check in FIELDS_OF_PATH.get(path, ANY_PATH).items():
        if body.get(name) is not None:
            check(name, body[name])
    for name in REQUIRED.get(path, ()):
        if body.get(name) is None:
            raise missing(name)
    for name, other in NEEDS.get(path, ANY_NEEDS).items():
        if body.get(name) and not body.get(other):
            raise InvalidRequest(
                f"The '{name}' parameter is only allowed when '{other}' is enabled.", param=name
            )


def model_from_body(body: Mapping[str, Any]) -> str:
    """The model that is asked for: `model`, or `model_type` as another name for it."""
    names = {k: body[k] for k in ("model", "model_type") if body.get(k) is not None}
    for field, name in names.items():
        fields.string(field, name)
    if len(set(names.values())) > 1:
        raise InvalidRequest("'model' and 'model_type' differ.", param="model_type")
    if not names or not (name := next(iter(names.values()))):
        raise InvalidRequest(
            "You must provide a model parameter.", param="model", code="missing_required_parameter"
        )
    return str(name)


def _messages(name: str, value: Any) -> None:
    if not isinstance(value, list):
        raise wrong_type(name, "an array of objects", value)
    if not value:
        raise empty(name)
    for index, message in enumerate(value):
        _message(f"{name}[{index}]", message)


def _message(name: str, value: Any) -> None:
    fields.object_(name, value)
    role = value.get("role")
    if role is None:
        raise missing(f"{name}.role")
    fields.string(f"{name}.role", role)
    if role not in ROLES:
        raise InvalidRequest(
            f"Invalid value: '{role[:MAX_ECHO_CHARS]}'. Supported values are: {', '.join(ROLES)}.",
            param=f"{name}.role",
        )
    if value.get("content") is not None or role not in MAY_BE_SILENT:
        _content(f"{name}.content", value.get("content"))


def _content(name: str, value: Any) -> None:
    if value is None:
        raise missing(name)
    if isinstance(value, str):
        return
    if not isinstance(value, list):
        raise wrong_type(name, "a string or an array of objects", value)
    if not value:
        raise empty(name)
    for index, part in enumerate(value):
        fields.object_(f"{name}[{index}]", part)
        if part.get("type") is None:
            raise missing(f"{name}[{index}].type")


def _stream_options(name: str, value: Any) -> None:
    fields.object_(name, value)
    if value.get("include_usage") is not None:
        fields.boolean(f"{name}.include_usage", value["include_usage"])


ANY_PATH: Mapping[str, Check] = {"stream": fields.boolean, "stream_options": _stream_options}
GENERATION: Mapping[str, Check] = {
    **ANY_PATH,
    "n": integer(1, MAX_CHOICES),
    "temperature": number(0, 2),
    "top_p": number(0, 1),
    "max_tokens": integer(1),
    "presence_penalty": number(-2, 2),
    "frequency_penalty": number(-2, 2),
    "seed": integer(-fields.MAX_INTEGER - 1),
    "stop": fields.stops,
    "logit_bias": fields.biases,
    "user": fields.string,
}
FIELDS_OF_PATH: Mapping[str, Mapping[str, Check]] = {
    CHAT: {
        **GENERATION,
        "messages": _messages,
        "max_completion_tokens": integer(1),
        "logprobs": fields.boolean,
        "top_logprobs": integer(0, 20),
        "tools": fields.objects(MAX_TOOLS),
        "tool_choice": fields.string_or_object,
        "parallel_tool_calls": fields.boolean,
        "response_format": fields.object_,
        "metadata": fields.object_,
    },
    COMPLETIONS: {
        **GENERATION,
        "prompt": fields.prompt,
        "logprobs": integer(0, 20),
        "max_tokens": integer(0),
        "best_of": integer(1, MAX_CHOICES),
        "echo": fields.boolean,
        "suffix": fields.string,
    },
}
REQUIRED: Mapping[str, tuple[str, ...]] = {CHAT: ("messages",), COMPLETIONS: ("prompt",)}
ANY_NEEDS: Mapping[str, str] = {"stream_options": "stream"}
NEEDS: Mapping[str, Mapping[str, str]] = {CHAT: {**ANY_NEEDS, "top_logprobs": "logprobs"}}
