"""What one field of a request may be: its type and range, refused in OpenAI's words and codes.

It knows no field by name, except by what it is told.
"""

from collections.abc import Callable
from typing import Any

from deployments.errors import InvalidRequest

Check = Callable[[str, Any], None]

MAX_INTEGER = 2**63 - 1
MAX_STOPS = 16
MAX_BIAS = 100


def missing(name: str) -> InvalidRequest:
    return InvalidRequest(
        f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter"
    )


def wrong_type(name: str, expected: str, value: Any) -> InvalidRequest:
    kinds = {bool: "a boolean", dict: "an object", list: "an array", str: "a string"}
    kind = "null" if value is None else kinds.get(type(value), "a number")
    return InvalidRequest(
        f"Invalid type for '{name}': expected {expected}, but got {kind} instead.",
        param=name,
        code="invalid_type",
    )


def empty(name: str) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid '{name}': empty array. Expected at least 1 item.", param=name, code="empty_array"
    )


def too_many(name: str, limit: int) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid '{name}': array too long. Expected at most {limit} items.",
        param=name,
        code="array_above_max_length",
    )


def _out_of_range(name: str, kind: str, edge: str, limit: float) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid '{name}': {kind} {edge} value. Expected a value "
        f"{'<=' if edge == 'above maximum' else '>='} {limit}.",
        param=name,
        code=f"{kind}_{'above_max' if edge == 'above maximum' else 'below_min'}_value",
    )


def string(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise wrong_type(name, "a string", value)


def boolean(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise wrong_type(name, "a boolean", value)


def object_(name: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise wrong_type(name, "an object", value)


def string_or_object(name: str, value: Any) -> None:
    if not isinstance(value, str | dict):
        raise wrong_type(name, "a string or an object", value)


def _in_range(name: str, value: float, kind: str, bounds: tuple[float, float]) -> None:
    low, high = bounds
    if value > high:
        raise _out_of_range(name, kind, "above maximum", high)
    if not value >= low:
        raise _out_of_range(name, kind, "below minimum", low)


def integer(low: int, high: int = MAX_INTEGER) -> Check:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            raise wrong_type(name, "an integer", value)
        _in_range(name, value, "integer", (low, high))

    return check


def number(low: float, high: float) -> Check:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise wrong_type(name, "a decimal", value)
        _in_range(name, value, "decimal", (low, high))

    return check


def objects(max_items: int) -> Check:
    """An array of objects; it may be empty."""

    def check(name: str, value: Any) -> None:
        if not isinstance(value, list):
            raise wrong_type(name, "an array of objects", value)
        if len(value) > max_items:
            raise too_many(name, max_items)
        for index, item in enumerate(value):
            object_(f"{name}[{index}]", item)

    return check


def stops(name: str, value: Any) -> None:
    strings = [value] if isinstance(value, str) else value
    if not isinstance(strings, list) or not all(isinstance(stop, str) for stop in strings):
        raise wrong_type(name, "a string or an array of strings", value)
    if len(strings) > MAX_STOPS:
        raise too_many(name, MAX_STOPS)
    if "" in strings:
        raise InvalidRequest(f"Invalid '{name}': a stop string is empty.", param=name)


def biases(name: str, value: Any) -> None:
    """Token ids, as the strings that JSON's keys are, to numbers."""
    object_(name, value)
    check = number(-MAX_BIAS, MAX_BIAS)
    for token, bias in value.items():
        if not token.isdecimal():
            raise InvalidRequest(f"Invalid '{name}': its keys are token ids.", param=name)
        check(name, bias)


def prompt(name: str, value: Any) -> None:
    """A text, its tokens, or several of either."""
    if not isinstance(value, str | list):
        raise wrong_type(name, "a string or an array", value)
    if value == []:
        raise empty(name)
