"""vLLM's error answers as errors of ours. What a server error says is not shown."""

from collections.abc import AsyncIterator

import msgspec

from deployments.body import MAX_ECHO_CHARS
from deployments.errors import (
    BackendOverloaded,
    BackendUnavailable,
    ContextTooLong,
    InvalidRequest,
    RoundhouseError,
    UnsupportedEndpoint,
)
from deployments.exchange import Head

MAX_ERROR_BYTES = 65536


async def error_from_answer(
    head: Head, answer: AsyncIterator[Head | bytes], path: str
) -> RoundhouseError:
    """vLLM's error answer as one of ours."""
    body = b""
    async for piece in answer:
        if isinstance(piece, bytes) and len(body) < MAX_ERROR_BYTES:
            body += piece
    try:
        error = msgspec.json.decode(body).get("error", {})
        message, param = str(error["message"])[:MAX_ECHO_CHARS], error.get("param")
    except (msgspec.DecodeError, AttributeError, KeyError, TypeError):
        message, param = "", None
    return _error(head.status, message, param, path)


def _error(status: int, message: str, param: str | None, path: str) -> RoundhouseError:
    if status in {404, 405, 501}:
        return UnsupportedEndpoint(f"This model does not answer {path}.")
    if status == 429:
        return BackendOverloaded("The model's queue is full.", retry_after_s=1)
    if status == 503:
        return BackendUnavailable("The model cannot answer now.", retry_after_s=1)
    if status >= 500:
        return RoundhouseError()
    kind = ContextTooLong if _is_about_context(message, param) else InvalidRequest
    return kind(message or "The model refused the request.", param=_plain_param(param))


def _is_about_context(message: str, param: str | None) -> bool:
    """vLLM names the parameter for a long prompt, and for a long answer only in its text."""
    return param == "input_tokens" or "max_model_len" in message or "context length" in message


def _plain_param(param: str | None) -> str | None:
    """OpenAI names a field as the client wrote it, without vLLM's `body.` before it."""
    return param.removeprefix("body.") if param else None
