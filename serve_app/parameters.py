"""What the fields of a request may be, as far as the router can know for every backend.

It refuses what no backend could answer, so that a bad request costs nothing behind the router. What
a particular model allows (its context, its tools) is the backend's to say.
"""

from collections.abc import Callable, Mapping
from typing import Any

from deployments.body import MAX_ECHO_CHARS
from deployments.errors import InvalidRequest

Check = Callable[[str, Any], None]

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
MAX_INTEGER = 2**63 - 1
MAX_STOPS = 16


def check_fields(path: str, body: Mapping[str, Any]) -> None:
    """Raises: InvalidRequest, naming the first field that cannot be right."""
    for name, check in FIELDS_OF_PATH.get(path, ANY_PATH).items():
        if body.get(name) is not None:
            check(name, body[name])
    for name in REQUIRED.get(path, ()):
        if body.get(name) is None:
            raise _missing(name)
    if body.get("stream_options") is not None and not body.get("stream"):
        raise InvalidRequest(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            param="stream_options",
        )


def model_from_body(body: Mapping[str, Any]) -> str:
    """The model that is asked for: `model`, or `model_type` as another name for it."""
    names = {k: body[k] for k in ("model", "model_type") if body.get(k) is not None}
    for field, name in names.items():
        _string(field, name)
    if len(set(names.values())) > 1:
        raise InvalidRequest("'model' and 'model_type' differ.", param="model_type")
    if not names or not (name := next(iter(names.values()))):
        raise InvalidRequest(
            "You must provide a model parameter.", param="model", code="missing_required_parameter"
        )
    return str(name)


def _missing(name: str) -> InvalidRequest:
    return InvalidRequest(
        f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter"
    )


def _wrong_type(name: str, expected: str, value: Any) -> InvalidRequest:
    kind = {bool: "a boolean", dict: "an object", list: "an array", str: "a string"}.get(
        type(value), "a number"
    )
    return InvalidRequest(
        f"Invalid type for '{name}': expected {expected}, but got {kind} instead.",
        param=name,
        code="invalid_type",
    )


def _out_of_range(name: str, kind: str, edge: str, limit: float) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid '{name}': {kind} {edge} value. Expected a value "
        f"{'<=' if edge == 'above maximum' else '>='} {limit}.",
        param=name,
        code=f"{kind}_{'above_max' if edge == 'above maximum' else 'below_min'}_value",
    )


def _string(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise _wrong_type(name, "a string", value)


def _boolean(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise _wrong_type(name, "a boolean", value)


def _object(name: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise _wrong_type(name, "an object", value)


def _in_range(name: str, value: float, kind: str, bounds: tuple[float, float]) -> None:
    low, high = bounds
    if value > high:
        raise _out_of_range(name, kind, "above maximum", high)
    if not value >= low:
        raise _out_of_range(name, kind, "below minimum", low)


def _integer(low: int, high: int = MAX_INTEGER) -> Check:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            raise _wrong_type(name, "an integer", value)
        _in_range(name, value, "integer", (low, high))

    return check


def _number(low: float, high: float) -> Check:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise _wrong_type(name, "a decimal", value)
        _in_range(name, value, "decimal", (low, high))

    return check


def _stops(name: str, value: Any) -> None:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise _wrong_type(name, "a string or an array of strings", value)
    if len(stops) > MAX_STOPS:
        raise InvalidRequest(
            f"Invalid '{name}': array too long. Expected at most {MAX_STOPS} items.",
            param=name,
            code="array_above_max_length",
        )
    if "" in stops:
        raise InvalidRequest(f"Invalid '{name}': a stop string is empty.", param=name)


def _messages(name: str, value: Any) -> None:
    if not isinstance(value, list):
        raise _wrong_type(name, "an array of objects", value)
    if not value:
        raise InvalidRequest(
            f"Invalid '{name}': empty array. Expected at least 1 message.",
            param=name,
            code="empty_array",
        )
    for index, message in enumerate(value):
        _message(f"{name}[{index}]", message)


def _message(name: str, value: Any) -> None:
    _object(name, value)
    role = value.get("role")
    if role is None:
        raise _missing(f"{name}.role")
    _string(f"{name}.role", role)
    if role not in ROLES:
        raise InvalidRequest(
            f"Invalid value: '{role[:MAX_ECHO_CHARS]}'. Supported values are: {', '.join(ROLES)}.",
            param=f"{name}.role",
        )


ANY_PATH: Mapping[str, Check] = {"stream": _boolean, "stream_options": _object}
GENERATION: Mapping[str, Check] = {
    **ANY_PATH,
    "n": _integer(1, 128),
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "max_tokens": _integer(1),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "seed": _integer(-MAX_INTEGER - 1),
    "stop": _stops,
    "logit_bias": _object,
}
FIELDS_OF_PATH: Mapping[str, Mapping[str, Check]] = {
    CHAT: {
        **GENERATION,
        "messages": _messages,
        "max_completion_tokens": _integer(1),
        "logprobs": _boolean,
        "top_logprobs": _integer(0, 20),
    },
    COMPLETIONS: {**GENERATION, "logprobs": _integer(0, 20), "max_tokens": _integer(0)},
}
REQUIRED: Mapping[str, tuple[str, ...]] = {CHAT: ("messages",), COMPLETIONS: ("prompt",)}
