"""A request's JSON body: read strictly, and rewritten without touching what was not asked for."""

from collections.abc import Iterable
from typing import Any

import jiter
import msgspec

from deployments.errors import InvalidRequest

MAX_ECHO_CHARS = 200  # of what a client sent, in any answer


def parse_object(body: bytes) -> dict[str, Any]:
    """The body as a dict.

    Refuses what lenient parsers let through and backends then disagree about: NaN and infinities,
    lone surrogates, duplicate keys, invalid UTF-8, deep nesting, trailing bytes.

    Raises: InvalidRequest.
    """
    try:
        parsed = jiter.from_json(body, allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError as exc:
        reason = str(exc)[:MAX_ECHO_CHARS]
        raise InvalidRequest(f"We could not parse the JSON body of your request: {reason}") from exc
    if not isinstance(parsed, dict):
        raise InvalidRequest("The JSON body of a request must be an object.")
    _check_numbers(body)
    return parsed


def is_object(body: bytes) -> bool:
    """Whether the bytes are a JSON object; it need not be a strict one."""
    try:
        return isinstance(jiter.from_json(body), dict)
    except ValueError:
        return False


def _check_numbers(body: bytes) -> None:
    """1e999 is well-formed, but no float; the first parser makes an infinity of it.

    Raises: InvalidRequest.
    """
    try:
        msgspec.json.decode(body)
    except msgspec.MsgspecError as exc:
        raise InvalidRequest(
            "We could not parse the JSON body of your request: a number is out of range."
        ) from exc


def with_fields(body: bytes, drop: Iterable[str] = (), **fields: Any) -> bytes:
    """The same JSON object with these top-level fields set, and those of `drop` left out.

    The bytes of every other value are kept as they are.
    """
    members: dict[str, Any] = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    for name in drop:
        members.pop(name, None)
    members.update({name: msgspec.Raw(msgspec.json.encode(v)) for name, v in fields.items()})
    return msgspec.json.encode(members)
