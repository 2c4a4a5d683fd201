"""pydantic's findings, in the words and codes that OpenAI's API uses for them."""

from typing import Any

from pydantic import ValidationError

from deployments.body import MAX_ECHO_CHARS
from deployments.errors import InvalidRequest

EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "a boolean",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
}
JSON_NAMES = {
    bool: "a boolean",
    int: "an integer",
    float: "a decimal number",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}
LIMITS = {
    "greater_than_equal": (">=", "ge"),
    "greater_than": (">", "gt"),
    "less_than_equal": ("<=", "le"),
    "less_than": ("<", "lt"),
}
# Errors found by looking at two fields: pydantic does not know which one to blame, the type does.
FIELD_ERRORS = {"stream_options", "top_logprobs", "max_tokens", "best_of"}


def invalid_request(exc: ValidationError) -> InvalidRequest:
    """The first finding as the error that the client gets."""
    error = exc.errors(include_url=False)[0]
    kind = error["type"]
    param = kind if kind in FIELD_ERRORS else _path(error["loc"])
    message, code = _describe(kind, param, error)
    return InvalidRequest(message, param=param or None, code=code)


def _path(loc: tuple[int | str, ...]) -> str:
    """`("messages", 0, "content")` as `messages[0].content`."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return _short(path.removeprefix("."))


def _describe(kind: str, param: str, error: Any) -> tuple[str, str | None]:
    """The message and the code for one finding."""
    if kind == "missing":
        return f"Missing required parameter: '{param}'.", "missing_required_parameter"
    if kind == "extra_forbidden":
        return f"Unknown parameter: '{param}'.", "unknown_parameter"
    if kind == "unsupported_parameter":
        return f"Unsupported parameter: '{param}': {error['msg']}.", "unsupported_parameter"
    if kind in EXPECTED:
        actual = JSON_NAMES.get(type(error["input"]), "something else")
        expected = f"expected {EXPECTED[kind]}, but got {actual} instead"
        return f"Invalid type for '{param}': {expected}.", "invalid_type"
    if kind in LIMITS:
        sign, key = LIMITS[kind]
        got = _short(str(error["input"]))
        return f"Invalid '{param}': expected a value {sign} {error['ctx'][key]}, got {got}.", None
    return f"Invalid '{param}': {_short(error['msg'])}.", _code(kind)


def _code(kind: str) -> str | None:
    return "invalid_type" if kind == "invalid_type" else None


def _short(text: str) -> str:
    return text[:MAX_ECHO_CHARS]
