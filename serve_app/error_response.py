"""Our errors as OpenAI's error bodies, as the event that ends a broken stream, and in the log.

Nothing but an error's own `message` is ever shown: no traceback, no internal text.
"""

import logging
import math
import traceback
from typing import Any

import msgspec

from deployments.errors import MethodNotAllowed, RoundhouseError
from deployments.exchange import JSON

logger = logging.getLogger("roundhouse")

MAX_RETRY_AFTER_S = 120  # OpenAI's clients do not wait longer than this


def envelope(error: RoundhouseError) -> dict[str, Any]:
    """OpenAI's error object."""
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
        }
    }


def body_from_error(error: RoundhouseError) -> bytes:
    """The JSON body of an error answer."""
    return msgspec.json.encode(envelope(error))


def event_from_error(error: RoundhouseError) -> bytes:
    """The server-sent event that ends a stream which went wrong. No `[DONE]` follows it."""
    return b"data: " + body_from_error(error) + b"\n\n"


def headers_from_error(error: RoundhouseError) -> list[tuple[str, str]]:
    """Content type, `Retry-After` (whole seconds) where it helps, and `Allow` for a 405."""
    headers = [("content-type", JSON)]
    if error.retry_after_s is not None:
        seconds = min(MAX_RETRY_AFTER_S, max(1, math.ceil(error.retry_after_s)))
        headers.append(("retry-after", str(seconds)))
    if isinstance(error, MethodNotAllowed):
        headers.append(("allow", error.allow))
    return headers


def log_unforeseen(exc: BaseException, request_id: str) -> None:
    """Logs where an unforeseen error came from, not its text: that may hold a key or a prompt."""
    frames = "".join(traceback.format_tb(exc.__traceback__))
    logger.error("request %s: unforeseen %s\n%s", request_id, type(exc).__name__, frames)
