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
    return parsed


def with_fields(body: bytes, drop: Iterable[str] = (), **fields: Any) -> bytes:
    """The same JSON object with these top-level fields set, and those of `drop` left out.

    The bytes of every other value are kept as they are.
    """
    members: dict[str, Any] = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    for name in drop:
        members.pop(name, None)
    members.update({name: msgspec.Raw(msgspec.json.encode(v)) for name, v in fields.items()})
    return msgspec.json.encode(members)
